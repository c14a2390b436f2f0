//! The network: who may come in, addresses, load balancers, interfaces.

use serde_json::{Value, json};

use super::{NETWORK, id, reference, resource, zones};
use crate::azure::{Action, Deployment, Rule, Vm};

const SUBNETS: &str = "Microsoft.Network/virtualNetworks/subnets";
const BALANCERS: &str = "Microsoft.Network/loadBalancers";
const POOLS: &str = "Microsoft.Network/loadBalancers/backendAddressPools";
const FRONTENDS: &str = "Microsoft.Network/loadBalancers/frontendIPConfigurations";

/// Everything of the network, and the interfaces of named machines.
pub fn resources(d: &Deployment) -> Vec<Value> {
    let mut all = vec![security_group(d)];
    all.extend(route_table(d));
    all.push(vnet(d));
    all.push(public_address(d));
    all.push(public_balancer(d));
    all.extend(internal_balancer(d));
    all.extend(d.machines.iter().map(|vm| interface(d, vm)));
    all
}

fn security_group(d: &Deployment) -> Value {
    let rules: Vec<Value> = d.rules.iter().map(rule).collect();
    resource(
        d,
        "Microsoft.Network/networkSecurityGroups",
        NETWORK,
        &d.named("nsg"),
        Vec::new(),
        json!({"securityRules": rules}),
    )
}

fn rule(rule: &Rule) -> Value {
    let mut properties = json!({
        "priority": rule.priority,
        "direction": "Inbound",
        "access": match rule.action {
            Action::Allow => "Allow",
            Action::Deny => "Deny",
        },
        "protocol": rule.protocol,
        "sourcePortRange": "*",
        "destinationPortRange": rule.port.map_or_else(|| "*".to_owned(), |port| port.to_string())
    });
    // A tag is only taken where there is one of them.
    for (addresses, key) in [
        (&rule.from, "sourceAddressPrefix"),
        (&rule.to, "destinationAddressPrefix"),
    ] {
        match addresses.as_slice() {
            [one] => properties[key] = json!(one),
            many => properties[format!("{key}es")] = json!(many),
        }
    }
    json!({"name": rule.name, "properties": properties})
}

fn route_table(d: &Deployment) -> Option<Value> {
    let routes = d.routes.as_ref()?;
    let route = |(name, range, next): &(String, ipnet::Ipv4Net, std::net::Ipv4Addr)| {
        json!({"name": name, "properties": {
            "addressPrefix": range.to_string(),
            "nextHopType": "VirtualAppliance",
            "nextHopIpAddress": next.to_string()
        }})
    };
    let routes: Vec<Value> = routes.iter().map(route).collect();
    Some(resource(
        d,
        "Microsoft.Network/routeTables",
        NETWORK,
        &d.named("routes"),
        Vec::new(),
        json!({"disableBgpRoutePropagation": false, "routes": routes}),
    ))
}

fn vnet(d: &Deployment) -> Value {
    let group = ("Microsoft.Network/networkSecurityGroups", d.named("nsg"));
    let table = ("Microsoft.Network/routeTables", d.named("routes"));
    let mut depends_on = vec![id(group.0, &[&group.1])];
    if d.routes.is_some() {
        depends_on.push(id(table.0, &[&table.1]));
    }
    let subnet = |(name, range): &(String, ipnet::Ipv4Net)| {
        let mut properties = json!({
            "addressPrefix": range.to_string(),
            "networkSecurityGroup": reference(group.0, &[&group.1])
        });
        if d.routes.is_some() {
            properties["routeTable"] = reference(table.0, &[&table.1]);
        }
        json!({"name": name, "properties": properties})
    };
    let subnets: Vec<Value> = d.subnets.iter().map(subnet).collect();
    resource(
        d,
        "Microsoft.Network/virtualNetworks",
        NETWORK,
        &d.named("vnet"),
        depends_on,
        json!({"addressSpace": {"addressPrefixes": [d.vnet.to_string()]}, "subnets": subnets}),
    )
}

fn public_address(d: &Deployment) -> Value {
    let mut properties = json!({
        "publicIPAddressVersion": "IPv4",
        "publicIPAllocationMethod": "Static"
    });
    if let Some(label) = &d.dns_label {
        properties["dnsSettings"] = json!({"domainNameLabel": label});
    }
    let kind = "Microsoft.Network/publicIPAddresses";
    let mut address = resource(d, kind, NETWORK, &d.named("ip"), Vec::new(), properties);
    address["sku"] = json!({"name": "Standard"});
    if !d.zones.is_empty() {
        address["zones"] = zones(&d.zones);
    }
    address
}

/// The way out for all machines; and, unless that is inside, the way in to the
/// API servers.
fn public_balancer(d: &Deployment) -> Value {
    let lb = d.named("lb");
    let ip = ("Microsoft.Network/publicIPAddresses", d.named("ip"));
    let frontend = reference(FRONTENDS, &[&lb, "public"]);
    let mut pools = vec![json!({"name": "machines"})];
    let mut properties = json!({
        "frontendIPConfigurations": [{
            "name": "public",
            "properties": {"publicIPAddress": reference(ip.0, &[&ip.1])}
        }],
        "outboundRules": [{"name": "out", "properties": {
            "protocol": "All",
            "enableTcpReset": true,
            "frontendIPConfigurations": [frontend],
            "backendAddressPool": reference(POOLS, &[&lb, "machines"])
        }}]
    });
    if d.api.internal.is_none() {
        pools.push(json!({"name": "masters"}));
        api(d, &mut properties);
    }
    properties["backendAddressPools"] = json!(pools);
    let nat = |vm: &Vm| {
        Some(json!({"name": vm.ssh_rule(), "properties": {
            "protocol": "Tcp",
            "frontendIPConfiguration": frontend,
            "frontendPort": vm.ssh_port?,
            "backendPort": 22,
            "enableTcpReset": true
        }}))
    };
    let nats: Vec<Value> = d.machines.iter().filter_map(nat).collect();
    if !nats.is_empty() {
        properties["inboundNatRules"] = json!(nats);
    }
    let depends_on = vec![id(ip.0, &[&ip.1])];
    let mut balancer = resource(d, BALANCERS, NETWORK, &lb, depends_on, properties);
    balancer["sku"] = json!({"name": "Standard"});
    balancer
}

fn internal_balancer(d: &Deployment) -> Option<Value> {
    let (address, subnet) = d.api.internal.as_ref()?;
    let (lb, vnet) = (d.named("api-lb"), d.named("vnet"));
    let mut frontend = json!({"name": "api", "properties": {
        "privateIPAddress": address.to_string(),
        "privateIPAllocationMethod": "Static",
        "privateIPAddressVersion": "IPv4",
        "subnet": reference(SUBNETS, &[&vnet, subnet])
    }});
    if !d.zones.is_empty() {
        frontend["zones"] = zones(&d.zones);
    }
    let mut properties = json!({
        "frontendIPConfigurations": [frontend],
        "backendAddressPools": [{"name": "masters"}]
    });
    api(d, &mut properties);
    let depends_on = vec![id("Microsoft.Network/virtualNetworks", &[&vnet])];
    let mut balancer = resource(d, BALANCERS, NETWORK, &lb, depends_on, properties);
    balancer["sku"] = json!({"name": "Standard"});
    Some(balancer)
}

/// The API server's rule and probe. A probe by HTTPS asks what the API server
/// itself thinks: one that only accepts connections may have lost its etcd.
/// Azure judges no certificate, and /readyz answers whoever asks.
fn api(d: &Deployment, properties: &mut Value) {
    let (lb, frontend) = d.api_balancer();
    properties["probes"] = json!([{"name": "api", "properties": {
        "protocol": "Https",
        "port": d.api.backend_port,
        "requestPath": "/readyz",
        "intervalInSeconds": 5,
        "probeThreshold": 2
    }}]);
    properties["loadBalancingRules"] = json!([{"name": "api", "properties": {
        "protocol": "Tcp",
        "frontendIPConfiguration": reference(FRONTENDS, &[&lb, frontend]),
        "frontendPort": d.api.port,
        "backendAddressPool": reference(POOLS, &[&lb, "masters"]),
        "backendPort": d.api.backend_port,
        "probe": reference("Microsoft.Network/loadBalancers/probes", &[&lb, "api"]),
        // What watches is silent for long.
        "idleTimeoutInMinutes": 30,
        "enableTcpReset": true,
        "disableOutboundSnat": true
    }}]);
}

fn interface(d: &Deployment, vm: &Vm) -> Value {
    let (lb, vnet) = (d.named("lb"), d.named("vnet"));
    let mut depends_on = vec![
        id("Microsoft.Network/virtualNetworks", &[&vnet]),
        id(BALANCERS, &[&lb]),
    ];
    let mut pools = vec![reference(POOLS, &[&lb, "machines"])];
    if vm.is_master() {
        let (api, _) = d.api_balancer();
        pools.push(reference(POOLS, &[&api, "masters"]));
        if api != lb {
            depends_on.push(id(BALANCERS, &[&api]));
        }
    }
    let mut properties = json!({
        "primary": true,
        "privateIPAllocationMethod": "Static",
        "privateIPAddress": vm.address.to_string(),
        "privateIPAddressVersion": "IPv4",
        "subnet": reference(SUBNETS, &[&vnet, &vm.subnet]),
        "loadBalancerBackendAddressPools": pools
    });
    if vm.ssh_port.is_some() {
        let rule = "Microsoft.Network/loadBalancers/inboundNatRules";
        properties["loadBalancerInboundNatRules"] =
            json!([reference(rule, &[&lb, &vm.ssh_rule()])]);
    }
    resource(
        d,
        "Microsoft.Network/networkInterfaces",
        NETWORK,
        &vm.interface(),
        depends_on,
        json!({
            "enableIPForwarding": true,
            "ipConfigurations": [{"name": "primary", "properties": properties}]
        }),
    )
}
