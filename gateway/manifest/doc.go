// Package manifest is the source `dir:PATH`: the cluster's objects as YAML and JSON
// files in a folder, taken as they are written. It is for hosts without Kubernetes,
// for tests and the demo, and it reads files once for `sallyport check`.
//
// What cannot be read never takes anything away: a file that is broken keeps the
// objects it last gave, a folder that vanishes keeps all of them, and a Problem
// says so. Only deleting a file, or taking an object out of one that is otherwise
// sound, removes it.
package manifest
