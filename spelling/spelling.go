// Package spelling finds what a misspelt name was meant to be. It is pure.
package spelling

// Nearest is the known name that a word was most likely meant to be: the first of those
// with the fewest letters to be added, taken away, changed or swapped with their neighbour,
// "" when it takes more than a quarter of the word (of short words, more than one letter).
func Nearest(word string, known []string) string {
	nearest, least := "", max(1, len(word)/4)+1
	for _, name := range known {
		if d := distance(word, name); d < least {
			nearest, least = name, d
		}
	}
	return nearest
}

// distance is that of Damerau and Levenshtein, with adjacent letters swapped once at most.
func distance(a, b string) int {
	var before, last []int
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, last, row = last, row, make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			changed := last[j-1]
			if a[i-1] != b[j-1] {
				changed++
			}
			row[j] = min(changed, last[j]+1, row[j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
	}
	return row[len(b)]
}
