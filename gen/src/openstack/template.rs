//! A Heat template, and the environment with the documents.
//! Source: OpenStack documentation, "Heat Orchestration Template (HOT)
//! specification" and "OpenStack Resource Types".

mod balancer;

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::access::Origin;
use super::{Deployment, Network, Server};
use crate::budget::grouped;
use crate::report::{Finding, Report};

/// The version of templates: that of Heat since 2018.
const VERSION: &str = "2018-08-31";
/// Bytes of a template. Source: Heat's configuration reference, `max_template_size`.
const TEMPLATE: usize = 524_288;
/// Bytes of a request, with documents as JSON. Source: the same,
/// `max_json_body_size`.
const REQUEST: usize = 1_048_576;
/// Resources of a stack. Source: the same, `max_resources_per_stack`.
const RESOURCES: usize = 1_000;

/// The template, which has no secrets.
pub fn template(d: &Deployment) -> Result<String> {
    let value = value(d);
    let options = serde_yaml::ser_options! { folded_wrap_chars: 1_000_000 };
    let text = serde_yaml::to_string_with_options(&value, options);
    Ok(format!(
        "# The cluster {} on OpenStack. Written by kgen render.\n{}",
        d.cluster,
        text.context("writing YAML")?
    ))
}

/// The documents, with their keys: for their owner alone. Text as JSON quotes
/// it, which YAML reads byte for byte.
pub fn environment(
    d: &Deployment,
    documents: &BTreeMap<String, Zeroizing<Vec<u8>>>,
) -> Result<Zeroizing<String>, Report> {
    let mut text = Zeroizing::new("parameters:\n".to_owned());
    let mut report = Report::default();
    for name in d.documents() {
        let Some(bytes) = documents.get(name) else {
            report.add(Finding::new(format!(
                "openstack: there is no document of {name}"
            )));
            continue;
        };
        // The client reads files as text, and takes CR LF for LF.
        let document = std::str::from_utf8(bytes)
            .ok()
            .filter(|t| !t.contains('\r'));
        let Some(document) = document else {
            let message = format!(
                "user-data of {name}: Heat and the openstack client take documents for text, \
                 and this is none"
            );
            let help = "leave gzip out; files with CR in them go with encoding";
            report.add(Finding::new(message).help(help));
            continue;
        };
        text.push_str(&format!("  {}: ", parameter(name)));
        push_quoted(&mut text, document);
        text.push('\n');
    }
    report.into_result()?;
    Ok(text)
}

/// Why Heat would not take these, if it would not.
pub fn refused(d: &Deployment, template: &str, environment: &str) -> Option<String> {
    let resources = value(d)["resources"].as_object().map_or(0, Map::len);
    // As JSON in a request the template is text once more.
    let request = environment.len() + template.len() + template.len() / 8;
    let over = [
        (template.len(), TEMPLATE, "bytes of a template"),
        (request, REQUEST, "bytes of a request with all documents"),
        (resources, RESOURCES, "resources"),
    ];
    let (has, takes, what) = over.into_iter().find(|(has, takes, _)| has > takes)?;
    Some(format!(
        "Heat takes {} {what}, and this has {}: use up without --stack, or pools",
        grouped(takes),
        grouped(has)
    ))
}

fn push_quoted(text: &mut String, document: &str) {
    text.push('"');
    for c in document.chars() {
        match c {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\t' => text.push_str("\\t"),
            ' '..='~' => text.push(c),
            // Source: YAML 1.1, 5.6; eight digits reach every character.
            c => text.push_str(&format!("\\U{:08x}", u32::from(c))),
        }
    }
    text.push('"');
}

fn parameter(document: &str) -> String {
    format!("user_data_{}", document.replace(['-', '.'], "_"))
}

/// The name of a resource of a machine's.
fn of(what: &str, server: &Server) -> String {
    format!("{what}_{}", server.name.replace(['-', '.'], "_"))
}

fn resource(name: &str) -> Value {
    json!({"get_resource": name})
}

fn value(d: &Deployment) -> Value {
    let mut resources = Map::new();
    let (network, subnet, joined) = networks(d, &mut resources);
    groups(d, &mut resources);
    for (role, policy) in &d.server_groups {
        let name = d.named(role.as_str());
        add(
            &mut resources,
            &format!("apart_{role}"),
            "OS::Nova::ServerGroup",
            json!({"name": name, "policies": [policy]}),
        );
    }
    for server in &d.servers {
        machine(d, server, &network, &subnet, joined, &mut resources);
    }
    let mut api = d.first_master().map(|master| resource(&of("port", master)));
    if let Some(wanted) = &d.balancer {
        balancer::resources(d, wanted, &subnet, &mut resources);
        api = Some(json!({"get_attr": ["api", "vip_port_id"]}));
    }
    let mut parameters = parameters(d);
    if let (Some(address), Some(port)) = (d.api_floating_ip, api) {
        let description = format!("The ID of the project's floating address {address}.");
        parameters.insert(
            "api_floating_ip".to_owned(),
            json!({"type": "string", "description": description}),
        );
        add(
            &mut resources,
            "api_address",
            "OS::Neutron::FloatingIPAssociation",
            json!({"floatingip_id": {"get_param": "api_floating_ip"}, "port_id": port}),
        );
        after(&mut resources, "api_address", joined);
    }
    let mut outputs = Map::new();
    for server in d.servers.iter().filter(|s| s.floating) {
        let address = json!({"get_attr": [of("address", server), "floating_ip_address"]});
        outputs.insert(of("address", server), json!({"value": address}));
    }
    let mut template = json!({
        "heat_template_version": VERSION,
        "description": format!("The cluster {}, made by kgen", d.cluster),
        "parameters": parameters,
        "resources": resources,
    });
    if !outputs.is_empty() {
        template["outputs"] = Value::Object(outputs);
    }
    template
}

fn parameters(d: &Deployment) -> Map<String, Value> {
    let mut parameters = Map::new();
    for document in d.documents() {
        let description = format!("{document}/user-data");
        let value = json!({"type": "string", "hidden": true, "description": description});
        parameters.insert(parameter(document), value);
    }
    let image = json!({
        "type": "string",
        "default": d.image,
        "description": "What machines' disks are made from.",
        "constraints": [{"custom_constraint": "glance.image"}]
    });
    parameters.insert("image".to_owned(), image);
    parameters
}

fn add(resources: &mut Map<String, Value>, name: &str, kind: &str, properties: Value) {
    let resource = json!({"type": kind, "properties": properties});
    resources.insert(name.to_owned(), resource);
}

/// Makes a resource wait for another that it does not refer to.
fn after(resources: &mut Map<String, Value>, name: &str, other: Option<&str>) {
    if let (Some(resource), Some(other)) = (resources.get_mut(name), other) {
        resource["depends_on"] = json!([other]);
    }
}

/// The network, its subnet, and what has to be there before anybody reaches
/// the world outside.
fn networks(
    d: &Deployment,
    resources: &mut Map<String, Value>,
) -> (Value, Value, Option<&'static str>) {
    let (cidr, dynamic, dns, router) = match &d.network {
        Network::Existing { network, subnet } => return (json!(network), json!(subnet), None),
        Network::Made {
            cidr,
            dynamic,
            dns_servers,
            router,
        } => (cidr, dynamic, dns_servers, router),
    };
    let (name, tags) = (&d.cluster, json!([d.tag()]));
    let network = json!({"name": name, "tags": tags});
    add(resources, "network", "OS::Neutron::Net", network);
    let mut subnet = json!({
        "name": name,
        "tags": tags,
        "network": resource("network"),
        "ip_version": 4,
        "cidr": cidr.to_string(),
    });
    if let Some((first, last)) = dynamic {
        let pool = json!({"start": first.to_string(), "end": last.to_string()});
        subnet["allocation_pools"] = json!([pool]);
    }
    if !dns.is_empty() {
        let dns: Vec<String> = dns.iter().map(ToString::to_string).collect();
        subnet["dns_nameservers"] = json!(dns);
    }
    add(resources, "subnet", "OS::Neutron::Subnet", subnet);
    let router = match router {
        Some(router) => json!(router),
        None => {
            let mut own = json!({"name": name, "tags": tags});
            if let Some(external) = &d.external {
                own["external_gateway_info"] = json!({"network": external});
            }
            add(resources, "router", "OS::Neutron::Router", own);
            resource("router")
        }
    };
    add(
        resources,
        "router_interface",
        "OS::Neutron::RouterInterface",
        json!({"router": router, "subnet": resource("subnet")}),
    );
    (
        resource("network"),
        resource("subnet"),
        Some("router_interface"),
    )
}

fn groups(d: &Deployment, resources: &mut Map<String, Value>) {
    for group in &d.groups {
        let rules = group.rules.iter().map(|rule| {
            let mut value = json!({"direction": "ingress", "ethertype": "IPv4"});
            match &rule.from {
                // Without an ID it is the group itself.
                Origin::Group => value["remote_mode"] = json!("remote_group_id"),
                Origin::Range(net) => value["remote_ip_prefix"] = json!(net.to_string()),
            }
            if let Some(port) = rule.port {
                value["protocol"] = json!("tcp");
                value["port_range_min"] = json!(port);
                value["port_range_max"] = json!(port);
            }
            value
        });
        let rules: Vec<Value> = rules.collect();
        add(
            resources,
            &format!("group_{}", group.name),
            "OS::Neutron::SecurityGroup",
            json!({"name": d.named(group.name), "rules": rules}),
        );
    }
}

fn machine(
    d: &Deployment,
    server: &Server,
    network: &Value,
    subnet: &Value,
    joined: Option<&str>,
    resources: &mut Map<String, Value>,
) {
    let groups = server.groups().iter();
    let groups: Vec<Value> = groups.map(|g| resource(&format!("group_{g}"))).collect();
    let mut port = json!({
        "name": d.named(&server.name),
        "tags": [d.tag()],
        "network": network,
        "security_groups": groups,
    });
    port["fixed_ips"] = match server.address {
        Some(address) => json!([{"subnet": subnet, "ip_address": address.to_string()}]),
        None => json!([{"subnet": subnet}]),
    };
    if !server.pairs.is_empty() {
        let pair = |net: &ipnet::Ipv4Net| json!({"ip_address": net.to_string()});
        port["allowed_address_pairs"] = server.pairs.iter().map(pair).collect();
    }
    let port_name = of("port", server);
    add(resources, &port_name, "OS::Neutron::Port", port);
    let image = json!({"get_param": "image"});
    let mut properties = json!({
        "name": server.name,
        "flavor": server.flavor,
        "networks": [{"port": resource(&port_name)}],
        "metadata": {super::TAG: d.cluster, "role": server.role.as_str()},
        "user_data_format": "RAW",
        "user_data": {"get_param": parameter(&server.document)},
        // A new document makes no new machine of one that runs.
        "user_data_update_policy": "IGNORE",
    });
    match d.volume_gb {
        None => properties["image"] = image,
        Some(gb) => {
            properties["block_device_mapping_v2"] = json!([{
                "boot_index": 0,
                "image": image,
                "volume_size": gb,
                "delete_on_termination": true
            }]);
        }
    }
    if let Some(key) = &d.key_name {
        properties["key_name"] = json!(key);
    }
    if let Some(zone) = &server.zone {
        properties["availability_zone"] = json!(zone);
    }
    if d.server_groups.iter().any(|(role, _)| *role == server.role) {
        let group = resource(&format!("apart_{}", server.role));
        properties["scheduler_hints"] = json!({"group": group});
    }
    let name = of("server", server);
    add(resources, &name, "OS::Nova::Server", properties);
    after(resources, &name, joined);
    if let (true, Some(external)) = (server.floating, &d.external) {
        let name = of("address", server);
        add(
            resources,
            &name,
            "OS::Neutron::FloatingIP",
            json!({"floating_network": external, "port_id": resource(&port_name)}),
        );
        after(resources, &name, joined);
    }
}
