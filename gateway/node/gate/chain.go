package gate

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Plugin is the type of our plugin in a configuration, and the name of its program.
const Plugin = "sallyport-cni"

// Link is our plugin's part of a configuration.
type Link struct {
	Type string `json:"type"`
	// Mark is the file that says that the node's rules are in place.
	Mark string `json:"mark"`
	// Wait is how long a pod's start waits for it before it is put off.
	Wait string `json:"wait"`
	// Source is the file that the rest is a copy of, and Sum what it said. Where they
	// are so still, what others have chained behind us since stays.
	Source string `json:"source"`
	Sum    string `json:"sum"`
}

// chain is a network configuration list of the CNI (its specification, section 1), in
// the order and the words that it was written in.
type chain struct {
	fields  []field
	plugins []json.RawMessage
}

type field struct {
	key   string
	value json.RawMessage
}

const pluginsKey = "plugins"

func parse(text []byte) (chain, error) {
	var c chain
	d := json.NewDecoder(bytes.NewReader(text))
	if open, err := d.Token(); err != nil {
		return c, fmt.Errorf("it is no JSON: %w", err)
	} else if open != json.Delim('{') {
		return c, errors.New("it is no JSON object")
	}
	seen := map[string]bool{}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return c, fmt.Errorf("it is no JSON: %w", err)
		}
		f := field{key: key.(string)} // the decoder takes nothing else for a key
		if err := d.Decode(&f.value); err != nil {
			return c, fmt.Errorf("it is no JSON: %w", err)
		}
		if seen[f.key] {
			return c, fmt.Errorf("it has %q twice", f.key)
		}
		seen[f.key] = true
		c.fields = append(c.fields, f)
		if f.key == pluginsKey {
			if err := json.Unmarshal(f.value, &c.plugins); err != nil {
				return c, fmt.Errorf("its plugins are no list: %w", err)
			}
		}
	}
	if _, err := d.Token(); err != nil {
		return c, fmt.Errorf("it is not whole: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return c, errors.New("something follows its end")
	}
	if len(c.plugins) == 0 {
		return c, errors.New("it lists no plugins")
	}
	for i, p := range c.plugins {
		if typeOf(p) == "" {
			return c, fmt.Errorf("its plugin %d has no type", i+1)
		}
	}
	return c, nil
}

func typeOf(plugin json.RawMessage) string {
	var p struct {
		Type string `json:"type"`
	}
	_ = json.Unmarshal(plugin, &p) // what is none has no type
	return p.Type
}

// text writes the chain, with every value as it was.
func (c chain) text() []byte {
	var b bytes.Buffer
	b.WriteString("{\n")
	for i, f := range c.fields {
		key, _ := json.Marshal(f.key) // a string
		value := []byte(f.value)
		if f.key == pluginsKey {
			value = fmt.Appendf(nil, "[\n    %s\n  ]", bytes.Join(bytesOf(c.plugins), []byte(",\n    ")))
		}
		comma := ","
		if i == len(c.fields)-1 {
			comma = ""
		}
		fmt.Fprintf(&b, "  %s: %s%s\n", key, value, comma)
	}
	b.WriteString("}\n")
	return b.Bytes()
}

func bytesOf(all []json.RawMessage) [][]byte {
	out := make([][]byte, 0, len(all))
	for _, one := range all {
		out = append(out, one)
	}
	return out
}

// without our plugin, which somebody may have copied.
func (c chain) without() chain {
	out := chain{fields: c.fields}
	for _, p := range c.plugins {
		if typeOf(p) != Plugin {
			out.plugins = append(out.plugins, p)
		}
	}
	return out
}

// follow gives the list in the text with our plugin as its last.
func follow(text []byte, l Link) ([]byte, Link, error) {
	c, err := parse(text)
	if err != nil {
		return nil, l, err
	}
	if c = c.without(); len(c.plugins) == 0 {
		return nil, l, errors.New("it lists no plugins but ours")
	}
	l.Type, l.Sum = Plugin, fmt.Sprintf("%x", sha256.Sum256(c.text()))
	ours, err := json.Marshal(l)
	if err != nil {
		return nil, l, err
	}
	c.plugins = append(c.plugins, ours)
	return c.text(), l, nil
}

// linkIn finds our plugin's part in the text; false where it has none.
func linkIn(text []byte) (Link, bool) {
	var l Link
	c, err := parse(text)
	if err != nil {
		return l, false
	}
	for _, p := range c.plugins {
		if typeOf(p) == Plugin {
			return l, json.Unmarshal(p, &l) == nil
		}
	}
	return l, false
}
