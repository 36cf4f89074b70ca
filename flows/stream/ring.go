// Package stream carries the flows' streams between the gateways, over TCP,
// encrypted, each end sure that the other has the gossip key.
package stream

import (
	"crypto"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"sync"
	"time"
)

// Ring is the gossip's key ring as TLS has use for it. Whoever has a gossip key can
// derive the private key of a certificate from it, and nobody else can; so TLS 1.3
// with certificates on both ends, each known beforehand, proves the key to both, and
// gives forward secrecy and protection from replay that need no care here.
type Ring struct {
	mu       sync.Mutex
	own      tls.Certificate
	accepted []ed25519.PublicKey
	changed  chan struct{}
}

// derivation keeps the key from ever being any other use's of the same secret.
const derivation = "sallyport flows stream, version 1"

// NewRing takes keys as gossip.LoadKeys gives them: the first is shown, all are
// accepted.
func NewRing(keys [][]byte) (*Ring, error) {
	r := &Ring{}
	return r, r.Set(keys)
}

// Set replaces the keys while running; streams begun before end, and begin anew.
func (r *Ring) Set(keys [][]byte) error {
	if len(keys) == 0 {
		return errors.New("change the keys of the flows' streams: there is none")
	}
	var accepted []ed25519.PublicKey
	var own tls.Certificate
	for i, key := range keys {
		seed, err := hkdf.Key(sha256.New, key, nil, derivation, ed25519.SeedSize)
		if err != nil {
			return fmt.Errorf("derive a key of the flows' streams: %w", err)
		}
		private := ed25519.NewKeyFromSeed(seed)
		public := private.Public().(ed25519.PublicKey)
		accepted = append(accepted, public)
		if i > 0 {
			continue
		}
		// Nothing in it is looked at but the key. Signing by ed25519 needs no randomness.
		template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)}
		der, err := x509.CreateCertificate(nil, template, template, public, private)
		if err != nil {
			return fmt.Errorf("make the certificate of the flows' streams: %w", err)
		}
		own = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: crypto.PrivateKey(private)}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.own, r.accepted = own, accepted
	if r.changed != nil {
		close(r.changed)
	}
	r.changed = make(chan struct{})
	return nil
}

// current are the settings for either end, and what is closed when they change.
func (r *Ring) current() (*tls.Config, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	accepted := r.accepted
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{r.own},
		ClientAuth:             tls.RequireAnyClientCert,
		SessionTicketsDisabled: true,
		// No authority vouches for anybody and names mean nothing: VerifyConnection, which
		// is called on both ends, looks at the key.
		InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 1 {
				for _, key := range accepted {
					if key.Equal(s.PeerCertificates[0].PublicKey) {
						return nil
					}
				}
			}
			return errStranger
		},
	}, r.changed
}

var errStranger = errors.New("the other end has another gossip key: give all gateways the same --gossip-key-file")
