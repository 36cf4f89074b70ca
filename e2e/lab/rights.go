package lab

// StartWithout starts a program that lacks a capability, named as setpriv(1) does:
// sys_nice.
func (l *Lab) StartWithout(capability string, role Role, j int, args ...string) (*Program, error) {
	return l.start(role, j, []string{"setpriv", "--bounding-set", "-" + capability}, args)
}
