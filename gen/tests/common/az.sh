#!/bin/bash
# The az command as the scripts see it. What is there is kept in $AZ_STATE/there,
# what was called in $AZ_STATE/log; a call that begins with $AZ_FAIL fails.
set -eu
printf '%s\n' "$*" >>"$AZ_STATE/log"
case "$*" in "${AZ_FAIL:-none}"*) echo "az: no such luck" >&2; exit 1 ;; esac

kind=() name='' parent='' query='' tag='' capacity=''
while [ $# -gt 0 ]; do
    case "$1" in
    --name) name=$2 ;;
    --lb-name | --nsg-name | --vnet-name | --route-table-name) parent=$2 ;;
    --query) query=$2 ;;
    --tags) tag=${2#*=} ;;
    --instance-count | --new-capacity) capacity=$2 ;;
    --*) ;;
    *) [ -z "$name$parent$query" ] && kind+=("$1") ;;
    esac
    case "$1" in
    --disable-overprovision | --yes) shift ;;
    --*) shift; while [ $# -gt 0 ] && [ "${1#--}" = "$1" ]; do shift; done ;;
    *) shift ;;
    esac
done
verb=${kind[-1]}
unset 'kind[-1]'
# Only children have a parent: network vnet subnet, network lb rule.
[ ${#kind[@]} -ge 3 ] || parent=
thing="${kind[*]}/$parent"

case "$thing $verb" in
'group/ exists') if [ -e "$AZ_STATE/group" ]; then echo true; else echo false; fi ;;
'group/ create') printf '%s\n' "$tag" >"$AZ_STATE/group" ;;
'group/ show') cat "$AZ_STATE/group" ;;
'group/ delete') rm "$AZ_STATE/group" "$AZ_STATE/there" ;;
'account/ show') echo 00000000-0000-0000-0000-000000000000 ;;
'vmss/ show') cat "$AZ_STATE/capacity" ;;
'vmss/ scale') echo "$capacity" >"$AZ_STATE/capacity" ;;
*' create')
    printf '%s/%s\n' "$thing" "$name" >>"$AZ_STATE/there"
    [ "$thing" != vmss/ ] || echo "$capacity" >"$AZ_STATE/capacity"
    ;;
*' delete')
    grep -Fxv "$thing/$name" "$AZ_STATE/there" >"$AZ_STATE/left" || true
    mv "$AZ_STATE/left" "$AZ_STATE/there"
    ;;
*' list')
    wanted=${query#*"name=='"}
    wanted=${wanted%%"'"*}
    if grep -Fxq "$thing/$wanted" "$AZ_STATE/there" 2>/dev/null; then echo "$wanted"; fi
    ;;
esac
