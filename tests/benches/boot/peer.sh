#!/bin/sh
# What a shell script in user-data does between its exec and the kubelet's.
set -eu
for module in overlay br_netfilter; do modprobe "$module" 2>/dev/null || true; done
for setting in net.ipv4.ip_forward=1 net.bridge.bridge-nf-call-iptables=1 \
  fs.inotify.max_user_instances=8192; do
  sysctl -qw "$setting" || true
done
for program in kubelet kube-proxy; do test -x "/opt/kubernetes/bin/$program"; done
address=$(ip -4 route get 192.0.2.1 2>/dev/null | sed -n 's/.* src \([0-9.]*\).*/\1/p')
grep -q "@NAME@" /etc/hosts || echo "$address @NAME@" >>/etc/hosts

ip link show cbr0 >/dev/null 2>&1 || ip link add cbr0 type bridge
ip address replace "@BRIDGE@/24" dev cbr0
ip link set cbr0 up
ip link show peer.vxlan >/dev/null 2>&1 ||
  ip link add peer.vxlan type vxlan id 7 local "$address" dstport 4790 nolearning
ip link set peer.vxlan up
nft -f - <<RULES
table ip peer
delete table ip peer
table ip peer {
  chain postrouting {
    type nat hook postrouting priority srcnat;
    ip saddr @POD_RANGE@ ip daddr != @POD_RANGE@ masquerade
  }
  chain forward {
    type filter hook forward priority filter;
    iifname "cbr0" ip daddr 169.254.169.254 drop
  }
}
RULES
mkdir -p /etc/cni/net.d
cat >/etc/cni/net.d/10-peer.conflist <<LIST
{"cniVersion": "1.0.0", "name": "peer", "plugins": [
  {"type": "bridge", "bridge": "cbr0", "isGateway": true, "ipam":
    {"type": "host-local", "ranges": [[{"subnet": "@POD_RANGE@"}]],
     "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
LIST

systemctl start containerd.service
until ctr version >/dev/null 2>&1; do sleep 0.1; done

pki=/var/lib/kubelet/pki/kubelet-client-current.pem
test -e "$pki" || pki=$(sed -n 's/^ *client-certificate: *//p' /etc/kubernetes/kubelet.conf)
key=$(sed -n 's/^ *client-key: *//p' /etc/kubernetes/kubelet.conf)
test -e "$key" || key=$pki
api() {
  curl --silent --fail --cacert /etc/kubernetes/pki/ca.crt --cert "$pki" --key "$key" "$@"
}
until [ "$(api "@SERVER@/readyz")" = ok ]; do sleep 0.1; done
api --request PATCH --header 'Content-Type: application/merge-patch+json' \
  --data '{"metadata": {"labels": {"peer": "yes"}}}' "@SERVER@/api/v1/nodes/@NAME@" >/dev/null

mkdir -p /run/knode
cp /root/kubelet.env /root/kube-proxy.env /run/knode/
systemctl start kubelet.service
