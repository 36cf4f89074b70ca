package gateway

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

type problems []Problem

func (ps *problems) add(object, field string, reason Reason, format string, args ...any) {
	*ps = append(*ps, Problem{Object: object, Field: field, Reason: reason, Message: fmt.Sprintf(format, args...)})
}

// SortProblems returns the problems sorted and without doubles.
func SortProblems(ps []Problem) []Problem {
	slices.SortFunc(ps, func(a, b Problem) int {
		return cmp.Or(
			strings.Compare(a.Object, b.Object), strings.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line),
			strings.Compare(a.Field, b.Field), strings.Compare(string(a.Reason), string(b.Reason)), strings.Compare(a.Message, b.Message),
		)
	})
	return slices.Compact(ps)
}

const annotation = "sallyport.dev/egress-routes"

// annotationField is the field of a Problem with the annotation.
const annotationField = "metadata.annotations[" + annotation + "]"

func routeObject(name string) string     { return "EgressRoute " + name }
func namespaceObject(name string) string { return "Namespace " + name }
func nodeObject(name string) string      { return "Node " + name }
func podObject(p *Pod) string            { return "Pod " + p.Namespace + "/" + p.Name }
