package main

import "errors"

// Exit statuses of the commands that judge: trace and doctor.
const (
	exitWrong   = 1 // something is wrong
	exitUnasked = 2 // it could not be asked, or not all of it
)

// unasked is an error for which a command that judges ends with exitUnasked.
type unasked struct{ error }

func (e unasked) Unwrap() error { return e.error }

func exitStatus(err error) int {
	if errors.As(err, new(unasked)) {
		return exitUnasked
	}
	return exitWrong
}
