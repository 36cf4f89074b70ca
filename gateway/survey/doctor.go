package survey

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/sallyport/sallyport/doctor"
)

// Doctor asks all gateways and agents of a cluster for what their hosts show.
func Doctor(ctx context.Context, c Config, cluster Installation, forwarder Forwarder) (doctor.Report, error) {
	members, err := c.members(ctx, cluster)
	if err != nil {
		return doctor.Report{}, err
	}
	var patients []*patient
	for _, m := range members {
		patients = append(patients, &patient{program: m.Program, where: m.Node, get: func(ctx context.Context) ([]byte, error) {
			if m.Problem != "" {
				return nil, errors.New(m.Problem)
			}
			return forwarder.Get(ctx, m.Namespace, m.Pod, m.port, "/doctor")
		}})
	}
	r := examine(ctx, c, patients)
	for _, p := range patients {
		if apierrors.IsForbidden(p.err) {
			return r, fmt.Errorf("%w: ask for the right to get and create pods/portforward in the namespace of the Helm release", p.err)
		}
	}
	return r, nil
}

// DoctorAt asks the programs at the addresses of --http.
func DoctorAt(ctx context.Context, addrs []string, c Config) doctor.Report {
	defer http.DefaultClient.CloseIdleConnections()
	var patients []*patient
	for _, addr := range addrs {
		patients = append(patients, &patient{program: "program", where: addr, get: func(ctx context.Context) ([]byte, error) { return get(ctx, addr, "/doctor") }})
	}
	return examine(ctx, c, patients)
}

// patient is a program that is asked.
type patient struct {
	program, where string
	get            func(ctx context.Context) ([]byte, error)

	host doctor.Host
	err  error
}

func examine(ctx context.Context, c Config, patients []*patient) doctor.Report {
	turns := make(chan struct{}, max(1, c.AtOnce))
	var asked sync.WaitGroup
	for _, p := range patients {
		turns <- struct{}{}
		asked.Go(func() {
			defer func() { <-turns }()
			p.ask(ctx, c.Timeout)
		})
	}
	asked.Wait()
	var hosts []doctor.Host
	var silent []doctor.Silent
	for _, p := range patients {
		if p.err != nil {
			silent = append(silent, doctor.Silent{Program: p.program, Where: p.where, Why: p.err.Error()})
		} else {
			hosts = append(hosts, p.host)
		}
	}
	return doctor.Examine(hosts, silent)
}

func (p *patient) ask(ctx context.Context, timeout time.Duration) {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("no answer within %v", timeout))
	defer cancel()
	began := time.Now()
	body, err := p.get(ctx)
	if err == nil {
		if err = json.Unmarshal(body, &p.host); err == nil && p.host.Program == "" {
			err = errors.New("it does not answer as Sallyport does")
		}
	}
	// Its clock was read some time between question and answer.
	took := time.Since(began)
	p.host.Ahead, p.host.Doubt = p.host.Now.Sub(began.Add(took/2)), took/2
	p.err = err
}
