package cluster

import (
	"encoding/json"
	"fmt"
	"path"
	"regexp"
	"strings"
)

// recipe is what the last stage of our Dockerfile makes.
type recipe struct {
	suite      string   // of Debian
	packages   []string // installed without what they only recommend
	programs   []string // where our programs are put
	entrypoint []string
}

var (
	fromForm       = regexp.MustCompile(`(?m)^FROM debian:([a-z]+)-slim$`)
	installForm    = regexp.MustCompile(`apt-get install -y --no-install-recommends ([a-z0-9.+ -]+?) *(?:\\?\n|&&)`)
	copyForm       = regexp.MustCompile(`(?m)^COPY --from=build ((?:/[a-z-]+ )+/[a-z/]+/)$`)
	entrypointForm = regexp.MustCompile(`(?m)^ENTRYPOINT (\[.*\])$`)
)

// readDockerfile reads as much of the language as our Dockerfile uses. What it does not
// know it refuses, so that image and tests cannot drift apart unseen.
func readDockerfile(text string) (recipe, error) {
	var found [4]string
	for i, form := range []*regexp.Regexp{fromForm, installForm, copyForm, entrypointForm} {
		all := form.FindAllStringSubmatch(text, -1)
		if len(all) != 1 {
			return recipe{}, fmt.Errorf("the Dockerfile has %d times what matches %q: the tests' image is made from exactly one, change readDockerfile with it", len(all), form)
		}
		found[i] = all[0][1]
	}
	last := text[strings.LastIndex(text, "\nFROM "):]
	// One of each was read above; a further one of another form would be in the image alone.
	for _, word := range []string{"RUN", "COPY"} {
		if n := strings.Count(last, "\n"+word+" "); n != 1 {
			return recipe{}, fmt.Errorf("the Dockerfile's last stage has %d times %s: the tests' image is made from exactly one, change readDockerfile with it", n, word)
		}
	}
	for _, line := range strings.Split(last, "\n") {
		word, _, _ := strings.Cut(line, " ")
		switch word {
		case "ENV", "USER", "WORKDIR", "ADD", "CMD", "VOLUME", "SHELL":
			return recipe{}, fmt.Errorf("the Dockerfile says %q, which the tests' image would lack: change readDockerfile with it", line)
		}
	}
	r := recipe{suite: found[0], packages: strings.Fields(found[1])}
	copied := strings.Fields(found[2])
	into := copied[len(copied)-1]
	for _, program := range copied[:len(copied)-1] {
		r.programs = append(r.programs, path.Join(into, program))
	}
	if err := json.Unmarshal([]byte(found[3]), &r.entrypoint); err != nil {
		return recipe{}, fmt.Errorf("read the Dockerfile's entry point: %w", err)
	}
	return r, nil
}
