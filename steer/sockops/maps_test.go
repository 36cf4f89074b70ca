package sockops

import (
	"testing"
	"time"

	nf "github.com/sallyport/sallyport/netfilter"
)

func TestPortsThatHaveNoRoomAreTakenTogether(t *testing.T) {
	var many []nf.Ports
	for i := range uint16(portRanges + 3) {
		many = append(many, nf.Ports{First: 10 * i, Last: 10*i + 1})
	}
	v := valueOf(many)
	if v[0] != (portRange{0, 1}) || v[portRanges-2] != (portRange{60, 61}) || v[portRanges-1] != (portRange{70, 101}) {
		t.Errorf("%v: want the last to reach from 70 to 101", v)
	}
	one := valueOf(many[:1])
	for i, r := range one[1:] {
		if r.First <= r.Last {
			t.Errorf("range %d, which is not used, takes %v", i+1, r)
		}
	}
}

func TestWhatIsTriedMoreOftenIsTriedAsLong(t *testing.T) {
	for first, want := range map[int]int32{50: 5, 100: 4, 200: 3, 250: 2, 500: 1, 1000: 0} {
		if got := moreRetries(time.Duration(first) * time.Millisecond); got != want {
			t.Errorf("%d ms: %d more retries, want %d", first, got, want)
		}
	}
}
