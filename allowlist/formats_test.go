package allowlist

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"go.yaml.in/yaml/v3"
)

var update = flag.Bool("update", false, "write testdata anew")

func TestPrint(t *testing.T) {
	doubtful := partners()
	doubtful.Doubt = "two\nlines"
	for name, c := range map[string]struct {
		list   List
		format string
		sets   Sets
	}{
		"text": {list: partners(), format: Text}, "json": {list: partners(), format: JSON}, "nft": {list: partners(), format: NFT},
		"nft-ip": {partners(), NFT, Sets{"ip", "filter", "partners"}}, "ipset": {list: partners(), format: IPSet},
		"ipset-named": {doubtful, IPSet, Sets{Name: "p"}}, "salt": {list: doubtful, format: Salt},
		"salt-empty": {list: List{Kind: Routes, Empty: true}, format: Salt}, "json-empty": {list: List{Kind: Nodes}, format: JSON},
		"nft-empty": {list: List{Kind: Routes, Empty: true}, format: NFT},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Print(c.list, c.format, c.sets)
			says(t, err)
			file := filepath.Join("testdata", name)
			if *update {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if says(t, err); string(got) != string(want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
	for _, format := range []string{Text, NFT, IPSet, Salt} {
		_, err := Print(List{Kind: Routes, Entries: []Entry{{Name: "a"}}}, format, Sets{})
		says(t, err, "no address")
	}
	_, err := Print(partners(), "xml", Sets{})
	says(t, err, "xml", "salt")
}

func TestThePillarIsYAML(t *testing.T) {
	text, err := Print(partners(), Salt, Sets{})
	says(t, err)
	var pillar struct {
		Sallyport struct {
			Allowlist map[string]map[string][]string
		}
	}
	if err := yaml.Unmarshal(text, &pillar); err != nil {
		t.Fatal(err)
	}
	routes := pillar.Sallyport.Allowlist["routes"]
	if len(routes) != 3 || len(routes["null"]) != 2 || routes["null"][0] != "192.0.2.9" || routes["kyc"][0] != "192.0.2.10" {
		t.Errorf("%v", routes)
	}
}
