#!/bin/sh
# Without CAP_SYS_RESOURCE nobody may lower a process's OOM score, and containerd must not try. Only where it is missing.
set -eu
bounding=$(awk '/^CapBnd/ {print $2}' /proc/self/status)
high=$(printf '%s' "$bounding" | cut -c1-10) # bits 24 to 63: the capability is bit 24, the lowest of these
case $high in
  *[02468aceACE]) sed -i 's/restrict_oom_score_adj = false/restrict_oom_score_adj = true/' /etc/containerd/config.toml ;;
esac
