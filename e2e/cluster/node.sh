#!/bin/bash
# What runs inside of a node. "init" is its PID 1: it gives the node standard paths of
# its own by bind mounts and starts containerd, kubelet and kube-proxy. When it dies, the
# kernel kills every process of the node, containers included.
#
#   node.sh init DIR PROGRAMS NAME CGROUP IMAGE...
#   node.sh start DIR PROGRAMS kubelet|kube-proxy
set -euo pipefail
verb=$1 dir=$2 programs=$3 name=$4; shift 4
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

start() { # PROGRAM: its options are in a file, one a line
	mapfile -t options < "$dir/$1.options"
	local program=$programs/$1
	if [ -e "$dir/$1.program" ]; then program=$(cat "$dir/$1.program"); fi
	setsid "$program" "${options[@]}" >> "$dir/$1.log" 2>&1 < /dev/null &
	echo $! > "/run/$1.pid"
}
if [ "$verb" = start ]; then start "$name"; exit; fi

cgroup=$1; shift
hostname "$name"
# /sys is to be this network namespace's own; the cgroups in it stay.
mkdir -p "$dir/cgroup"
mount --rbind /sys/fs/cgroup "$dir/cgroup"
umount -l /sys
mount -t sysfs sysfs /sys
mount --rbind "$dir/cgroup" /sys/fs/cgroup
umount -l "$dir/cgroup"
# What is attached to the root of version 2 is to be for this node's pods only.
own_cgroup=/sys/fs/cgroup/unified/$cgroup
if [ -d "$own_cgroup" ]; then mount --bind "$own_cgroup" /sys/fs/cgroup/unified; fi
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock /run/netns
# The kubelet sets these three, which have no namespace: it finds them as it wants
# them, and leaves the machine's own alone.
set_aside() { echo "$2" > "$dir/sysctl-${1##*/}"; mount --bind "$dir/sysctl-${1##*/}" "/proc/sys/$1"; }
set_aside kernel/panic 10
set_aside kernel/panic_on_oops 1
set_aside vm/overcommit_memory 1
own() { mkdir -p "$dir/$1" "$2"; mount --bind "$dir/$1" "$2"; }
own var-lib /var/lib
own var-log /var/log
own etc-cni /etc/cni
own opt-cni /opt/cni
own etc-containerd /etc/containerd
mkdir -p /var/lib/kubelet /var/lib/containerd /var/lib/cni /var/log/pods /var/log/containers
mount --make-rshared /

containerd --config /etc/containerd/config.toml >> "$dir/containerd.log" 2>&1 &
until ctr version >/dev/null 2>&1; do sleep 0.05; done
if [ ! -e "$dir/imported" ]; then # the disk outlives a power cut
	for image in "$@"; do ctr -n k8s.io images import "$image"; done
	touch "$dir/imported"
fi
for daemon in $(cat "$dir/daemons"); do start "$daemon"; done
start kube-proxy
# One that asks a containerd that is not ready to be asked gives up, and systemd would start it again.
until start kubelet; sleep 1; kill -0 "$(cat /run/kubelet.pid)" 2>/dev/null; do :; done
trap 'exit 0' TERM
while true; do wait || true; sleep 1; done
