package iptables

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
)

// Detect finds the variant that the host's own programs use: where the kubelet
// keeps its hint, then where there are more rules, then what `iptables` is.
// It changes nothing in the kernel.
func Detect(ctx context.Context) (Variant, error) {
	saves := map[Variant]string{}
	var wrong []error
	for _, v := range []Variant{NFT, Legacy} {
		// Without -t: naming a table would make iptables-legacy load it.
		save, err := run(ctx, "", v.tool(false, "-save"))
		if err != nil {
			wrong = append(wrong, err)
			continue
		}
		saves[v] = string(save)
	}
	if len(saves) == 0 {
		return "", fmt.Errorf("find the host's iptables variant: %w", errors.Join(wrong...))
	}
	version, _ := exec.CommandContext(ctx, "iptables", "--version").Output()
	return choose(saves, string(version)), nil
}

// choose is the decision of Detect. A variant without an entry cannot be used.
func choose(saves map[Variant]string, version string) Variant {
	for _, chain := range []string{"KUBE-IPTABLES-HINT", "KUBE-KUBELET-CANARY"} {
		for _, v := range []Variant{NFT, Legacy} {
			if hinted(saves[v], chain) {
				return v
			}
		}
	}
	nft, legacy := strings.Count(saves[NFT], "\n-A "), strings.Count(saves[Legacy], "\n-A ")
	_, hasNFT := saves[NFT]
	_, hasLegacy := saves[Legacy]
	switch {
	case !hasLegacy || (hasNFT && nft > legacy):
		return NFT
	case !hasNFT || legacy > nft:
		return Legacy
	case version != "" && !strings.Contains(version, "nf_tables"):
		return Legacy // versions before 1.8 name no variant
	}
	return NFT
}

// hinted says whether the mangle table has the chain.
func hinted(save, chain string) bool {
	_, mangle, _ := strings.Cut(save, "*mangle\n")
	mangle, _, _ = strings.Cut(mangle, "\nCOMMIT")
	return strings.Contains("\n"+mangle, "\n:"+chain+" ")
}
