package manifest

import (
	"maps"
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/sallyport/sallyport/api/v1alpha1"
	"github.com/sallyport/sallyport/spelling"
)

var kinds = map[string]reflect.Type{
	v1alpha1.Kind: reflect.TypeFor[v1alpha1.EgressRoute](), "Pod": reflect.TypeFor[corev1.Pod](),
	"Namespace": reflect.TypeFor[corev1.Namespace](), "Node": reflect.TypeFor[corev1.Node](),
}

// meantField is what the last name of a path, which its object has not, was meant to be.
func meantField(of reflect.Type, path string) string {
	names := strings.Split(path, ".")
	last := len(names) - 1
	for _, name := range names[:last] {
		name, _, _ = strings.Cut(name, "[")
		below, known := fields(of)[name]
		if !known {
			return ""
		}
		of = below
	}
	var known []string
	for name := range fields(of) {
		known = append(known, name)
	}
	slices.Sort(known)
	return spelling.Nearest(names[last], known)
}

// fields are those of an object in JSON, of a list those of its elements.
func fields(of reflect.Type) map[string]reflect.Type {
	for of.Kind() == reflect.Pointer || of.Kind() == reflect.Slice {
		of = of.Elem()
	}
	all := map[string]reflect.Type{}
	if of.Kind() != reflect.Struct {
		return all
	}
	for f := range of.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name != "" && name != "-":
			all[name] = f.Type
		case f.Anonymous:
			maps.Copy(all, fields(f.Type))
		}
	}
	return all
}
