// Package guide runs the commands of a page of the documentation as its reader would, one
// block after the other, and compares what they say with what the page shows.
//
// A block is fenced and marked `sh`. Further words behind it, which nobody sees where the
// page is shown, say how it is run:
//
//	background   goes on until the page ends, as in another terminal
//	again        until it says what is shown, as somebody does who waits
//	outside      and any other word: on that host, not on the reader's
//
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
			blocks = append(blocks, commands(begin+1, words[1:], text))
			behind = true
			continue
		case len(words) > 0 && words[0] == "text" && behind:
			blocks[len(blocks)-1].Shows = text
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

func commands(line int, words []string, text string) Block {
	b := Block{Line: line, Commands: text}
	for _, w := range words {
		switch w {
		case "background":
			b.Background = true
		case "again":
			b.Again = true
		default:
			b.Host = w
		}
	}
	return b
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
