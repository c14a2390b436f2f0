#!/bin/sh
# Stands for the openstack client: writes down what it is asked, and fails at one thing.
echo "$*" >>"$ASKED"
case "$* " in *"$FAILS"*) echo "it fails" >&2; exit 7 ;; esac
case "$* " in
"port show "* | "floating ip list --port "*) ;;
"server show "*) echo ACTIVE ;;
"server list "*) echo "s1 master-1 {'kgen-cluster': '$CLUSTER'}"; echo "s2 other {'kgen-cluster': 'other'}" ;;
"server group list "*) echo "g1 demo-etcd"; echo "g2 other" ;;
*" list "*) echo "i1" ;;
*) echo "n1" ;;
esac
