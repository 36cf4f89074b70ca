// Package guide runs the commands of a page of the documentation as its reader would, one
// block after the other, and compares what they say with what the page shows.
//
// A block is fenced and marked `sh`. Further words behind it, which nobody sees where the
// page is shown, say how it is run:
//
//	background   goes on until the page ends, as in another terminal
//	again        until it says what is shown, as somebody does who waits
//	outside      and any other word: on that host, not on the reader's; on each of several
//
// A block marked with a language and a file, such as `yaml cluster/pod.yaml`, is written there.
// A block marked `text` right behind it is what it shows: `…` stands for any text in a
// line, a line of it alone for any lines. Spaces in a row are one, as in tables.
package guide

import (
	"fmt"
	"regexp"
	"strings"
)

// Block is a step of a page.
type Block struct {
	Line       int    // of the page, from 1
	Host       string // "" is the reader's own
	Background bool
	Again      bool
	File       string // that the text is written to; "": it is commands
	Commands   string
	Shows      string // "": whatever it says
}

// Blocks are the steps of a page in Markdown.
func Blocks(page string) ([]Block, error) {
	var blocks []Block
	lines := strings.Split(page, "\n")
	behind := false // a block of commands, with nothing but empty lines since
	for i := 0; i < len(lines); i++ {
		indent, words, fenced := fence(lines[i])
		if !fenced {
			behind = behind && strings.TrimSpace(lines[i]) == ""
			continue
		}
		begin := i
		var body []string
		for i++; i < len(lines) && strings.TrimSpace(lines[i]) != "```"; i++ {
			body = append(body, strings.TrimPrefix(lines[i], indent))
		}
		if i == len(lines) {
			return nil, fmt.Errorf("line %d: the block has no end", begin+1)
		}
		text := strings.Join(body, "\n") + "\n"
		switch {
		case len(words) > 0 && words[0] == "sh":
			blocks = append(blocks, commands(begin+1, words[1:], text)...)
			behind = true
			continue
		case len(words) > 0 && words[0] == "text" && behind:
			for j := len(blocks) - 1; j >= 0 && blocks[j].Line == blocks[len(blocks)-1].Line; j-- {
				blocks[j].Shows = text
			}
		case len(words) > 1 && words[0] != "text":
			blocks = append(blocks, Block{Line: begin + 1, File: words[1], Commands: text})
		}
		behind = false
	}
	return blocks, nil
}

func fence(line string) (indent string, words []string, fenced bool) {
	text := strings.TrimLeft(line, " ")
	info, fenced := strings.CutPrefix(text, "```")
	return line[:len(line)-len(text)], strings.Fields(info), fenced
}

// Section is a page with nothing but what is under a heading, on the lines that it is on.
func Section(page, heading string) (string, error) {
	lines, found, level := strings.Split(page, "\n"), false, 0
	fenced := false
	for i, line := range lines {
		if strings.HasPrefix(line, "```") {
			fenced = !fenced
		}
		marks, text, is := strings.Cut(line, " ")
		if is = is && !fenced && marks != "" && strings.Trim(marks, "#") == ""; is && (level == 0 || len(marks) <= level) {
			if level = 0; strings.TrimSpace(text) == heading {
				found, level = true, len(marks)
			}
		}
		if level == 0 {
			lines[i] = ""
		}
	}
	if !found {
		return "", fmt.Errorf("there is no heading %q", heading)
	}
	return strings.Join(lines, "\n"), nil
}

// commands are the block, once for each host.
func commands(line int, words []string, text string) []Block {
	b := Block{Line: line, Commands: text}
	var hosts []string
	for _, w := range words {
		switch w {
		case "background":
			b.Background = true
		case "again":
			b.Again = true
		default:
			hosts = append(hosts, w)
		}
	}
	if len(hosts) == 0 {
		return []Block{b}
	}
	var blocks []Block
	for _, b.Host = range hosts {
		blocks = append(blocks, b)
	}
	return blocks
}

var spaces = regexp.MustCompile(`[ \t]+`)

// Shown says whether a block said what the page shows.
func (b Block) Shown(said string) bool {
	if b.Shows == "" {
		return true
	}
	return matches(tidy(b.Shows), tidy(said))
}

func tidy(text string) []string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	for i, l := range lines {
		lines[i] = strings.TrimSpace(spaces.ReplaceAllString(l, " "))
	}
	return lines
}

func matches(shows, said []string) bool {
	switch {
	case len(shows) == 0:
		return len(said) == 0
	case shows[0] == "…":
		return matches(shows[1:], said) || len(said) > 0 && matches(shows, said[1:])
	case len(said) == 0:
		return false
	}
	parts := strings.Split(shows[0], "…")
	for i := range parts {
		parts[i] = regexp.QuoteMeta(parts[i])
	}
	line := regexp.MustCompile("^" + strings.Join(parts, ".*") + "$")
	return line.MatchString(said[0]) && matches(shows[1:], said[1:])
}
