#!/bin/bash
# The Pod network without a daemon: the node whose address ends in N has the Pods 10.244.N.0/24, and static routes to the
# other nodes'. Runs at each start of the node, for Docker may give it another address.
set -euo pipefail

address=$(ip -4 -oneline addr show dev eth0 | awk '{sub("/.*", "", $4); print $4; exit}')
network=${address%.*}
number=${address##*.}

mkdir -p /etc/cni/net.d
cat > /etc/cni/net.d/10-pods.conflist << CNI
{
  "cniVersion": "1.0.0",
  "name": "pods",
  "plugins": [
    {
      "type": "bridge",
      "bridge": "pods",
      "isGateway": true,
      "hairpinMode": true,
      "ipam": {
        "type": "host-local",
        "dataDir": "/run/pod-addresses",
        "ranges": [[{"subnet": "10.244.$number.0/24"}]],
        "routes": [{"dst": "0.0.0.0/0"}]
      }
    },
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
CNI
for other in {2..20}; do
  [ "$other" = "$number" ] || ip route replace "10.244.$other.0/24" via "$network.$other"
done
sysctl -qw net.ipv4.ip_forward=1
iptables -t nat -A POSTROUTING -s 10.244.0.0/16 ! -d 10.244.0.0/16 -o eth0 -j MASQUERADE
