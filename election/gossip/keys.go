package gossip

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/hashicorp/memberlist"
)

const (
	minSecret   = 16      // characters of a line in a key file
	maxKeyFile  = 1 << 16 // bytes
	keyFileCure = "`head -c 32 /dev/urandom | base64` makes a good line"
)

// LoadKeys reads a key file: one secret a line, blank lines ignored. The first is
// used, the others are accepted, see SetKeys. Each line is hashed to a key, so that
// all of it counts, however long.
func LoadKeys(file string) ([][]byte, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, fmt.Errorf("read gossip key file: %w", err)
	}
	if info.IsDir() || info.Size() > maxKeyFile {
		return nil, fmt.Errorf("read gossip key file %s: not a file of at most %d bytes; %s", file, maxKeyFile, keyFileCure)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read gossip key file: %w", err)
	}
	keys, err := parseKeys(string(text))
	if err != nil {
		return nil, fmt.Errorf("read gossip key file %s: %w", file, err)
	}
	return keys, nil
}

func parseKeys(text string) ([][]byte, error) {
	var keys [][]byte
	number := 0
	for line := range strings.SplitSeq(text, "\n") {
		number++
		secret := strings.TrimSpace(line)
		if secret == "" {
			continue
		}
		if n := utf8.RuneCountInString(secret); n < minSecret {
			return nil, fmt.Errorf("line %d has %d characters, a key needs at least %d; %s", number, n, minSecret, keyFileCure)
		}
		key := sha256.Sum256([]byte(secret))
		if !contains(keys, key[:]) {
			keys = append(keys, key[:])
		}
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("no key in it; %s", keyFileCure)
	}
	return keys, nil
}

// Fingerprint is a short name of a key: members with the same one agree.
func Fingerprint(key []byte) string {
	sum := sha256.Sum256(append([]byte("sallyport gossip key "), key...))
	return hex.EncodeToString(sum[:4])
}

func validateKeys(keys [][]byte) error {
	if len(keys) == 0 {
		return errors.New("gossip key is missing: members only talk encrypted; give a key file")
	}
	for i, k := range keys {
		if len(k) != sha256.Size {
			return fmt.Errorf("gossip key %d has %d bytes, not %d: derive it from a key file", i+1, len(k), sha256.Size)
		}
	}
	return nil
}

// replaceKeys makes the ring hold exactly keys. memberlist decrypts with the ring's
// own slice and RemoveKey closes the gap in place, under a reader's eyes: only
// removing the last key moves nothing, so what shall go is first moved there.
func replaceKeys(ring *memberlist.Keyring, keys [][]byte) error {
	for _, k := range keys {
		if err := ring.AddKey(k); err != nil {
			return err
		}
	}
	// UseKey moves a key to the front; from the last to the first, they end in order.
	for i := len(keys) - 1; i >= 0; i-- {
		if err := ring.UseKey(keys[i]); err != nil {
			return err
		}
	}
	for {
		now := ring.GetKeys()
		last := now[len(now)-1]
		if contains(keys, last) {
			return nil
		}
		if err := ring.RemoveKey(last); err != nil {
			return err
		}
	}
}

func contains(keys [][]byte, key []byte) bool {
	for _, k := range keys {
		if bytes.Equal(k, key) {
			return true
		}
	}
	return false
}

func clone(keys [][]byte) [][]byte {
	out := make([][]byte, len(keys))
	for i, k := range keys {
		out[i] = bytes.Clone(k)
	}
	return out
}
