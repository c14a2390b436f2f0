//! What `kgen render` makes for Azure: the template as a whole, its documents,
//! and the topology of the documentation. (P45-P48, P54)

mod common;

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use common::azure::{documented, of_type, parameters, rendered, small, template, variants};
use common::{CLUSTER, Folder, PUBLIC_KEY};
use serde_json::{Value, json};

const VMS: &str = "Microsoft.Compute/virtualMachines";
const SCALE_SETS: &str = "Microsoft.Compute/virtualMachineScaleSets";
const BALANCERS: &str = "Microsoft.Network/loadBalancers";

/// Three members of etcd, a master and two nodes, as the documentation says.
#[test]
fn the_example_is_three_members_of_etcd_a_master_and_two_nodes() {
    let folder = rendered(&documented()[0]);
    let template = template(&folder);
    let mut roles: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for vm in of_type(&template, VMS) {
        let role = vm["tags"]["role"].as_str().unwrap();
        roles
            .entry(role)
            .or_default()
            .push(vm["name"].as_str().unwrap());
    }
    assert_eq!(roles["etcd"], ["etcd-1", "etcd-2", "etcd-3"]);
    assert_eq!(roles["master"], ["master-1"]);
    assert_eq!(roles["node"], ["node-1", "node-2"]);
    for (nth, size) in [(3, "Standard_D2s_v5"), (5, "Standard_D4s_v5")] {
        let vm = of_type(&template, VMS)[nth];
        let expression = &vm["properties"]["hardwareProfile"]["vmSize"];
        let role = vm["tags"]["role"].as_str().unwrap();
        assert_eq!(*expression, format!("[parameters('{role}Size')]"));
        let parameter = &template["parameters"][format!("{role}Size")];
        assert_eq!(parameter["defaultValue"], size);
    }
    // Each role has its availability set, each machine its address.
    assert_eq!(
        of_type(&template, "Microsoft.Compute/availabilitySets").len(),
        3
    );
    let interfaces = of_type(&template, "Microsoft.Network/networkInterfaces");
    let addresses: Vec<&str> = interfaces
        .iter()
        .map(|nic| {
            assert_eq!(nic["properties"]["enableIPForwarding"], true);
            let ip = &nic["properties"]["ipConfigurations"][0]["properties"];
            assert_eq!(ip["privateIPAllocationMethod"], "Static");
            ip["privateIPAddress"].as_str().unwrap()
        })
        .collect();
    assert_eq!(
        addresses,
        [
            "10.0.0.11",
            "10.0.0.12",
            "10.0.0.13",
            "10.0.0.20",
            "10.0.0.31",
            "10.0.0.32"
        ]
    );
    let balancer = &of_type(&template, BALANCERS)[0]["properties"];
    let rule = &balancer["loadBalancingRules"][0]["properties"];
    assert_eq!(
        (&rule["frontendPort"], &rule["backendPort"]),
        (&json!(6443), &json!(6443))
    );
    let probe = &balancer["probes"][0]["properties"];
    assert_eq!(
        (&probe["protocol"], &probe["requestPath"]),
        (&json!("Https"), &json!("/readyz"))
    );
    let ports: Vec<&Value> = balancer["inboundNatRules"]
        .as_array()
        .unwrap()
        .iter()
        .map(|rule| &rule["properties"]["frontendPort"])
        .collect();
    assert_eq!(ports, [50001, 50002, 50003, 50004, 50005, 50006]);
    // The certificate answers to the public name.
    let kubeconfig = folder.read("out/admin.conf");
    assert!(kubeconfig.contains("https://kgen-demo.westeurope.cloudapp.azure.com:6443"));
    assert!(of_type(&template, "Microsoft.Network/routeTables").is_empty());
}

/// Only masters are behind the API's rule, and all machines have a way out.
#[test]
fn masters_are_behind_the_api_and_all_have_a_way_out() {
    for (variant, settings) in variants() {
        let template = template(&rendered(&settings));
        for nic in of_type(&template, "Microsoft.Network/networkInterfaces") {
            let ip = &nic["properties"]["ipConfigurations"][0]["properties"];
            let pools = ip["loadBalancerBackendAddressPools"].to_string();
            let master = nic["name"].as_str().unwrap().starts_with('m');
            assert_eq!(pools.contains("'masters'"), master, "{variant}: {nic}");
            assert!(pools.contains("'machines'"), "{variant}: {nic}");
        }
        for set in of_type(&template, SCALE_SETS) {
            let text = set.to_string();
            assert!(
                text.contains("'machines'") && !text.contains("'masters'"),
                "{variant}"
            );
        }
    }
}

/// Who may come in: nobody by default, and never the world.
#[test]
fn only_those_who_are_named_come_in() {
    let rules = |settings: &str| -> BTreeMap<String, Value> {
        let template = template(&rendered(settings));
        let group = of_type(&template, "Microsoft.Network/networkSecurityGroups")[0];
        let rules = group["properties"]["securityRules"].as_array().unwrap();
        let by_name = |r: &Value| {
            (
                r["name"].as_str().unwrap().to_owned(),
                r["properties"].clone(),
            )
        };
        rules.iter().map(by_name).collect()
    };
    let defaults = rules(&small("location: northeurope", ""));
    assert_eq!(
        defaults.keys().collect::<Vec<_>>(),
        ["machines", "neighbours", "probes"]
    );
    assert_eq!(defaults["machines"]["sourceAddressPrefix"], "10.0.0.0/20");
    assert_eq!(defaults["neighbours"]["access"], "Deny");
    assert_eq!(
        defaults["neighbours"]["sourceAddressPrefix"],
        "VirtualNetwork"
    );
    let example = rules(&documented()[0]);
    assert_eq!(example["ssh"]["sourceAddressPrefix"], "203.0.113.0/24");
    assert_eq!(example["ssh"]["destinationPortRange"], "22");
    assert_eq!(example["api"]["destinationAddressPrefix"], "10.0.0.20");
    assert_eq!(example["api"]["destinationPortRange"], "6443");
    // Pods' packets come as they are where Azure routes them.
    let routed = rules(&small("", "network: {mode: routed}\n"));
    assert_eq!(
        routed["machines"]["sourceAddressPrefixes"],
        json!(["10.0.0.0/20", "10.244.0.0/16"])
    );
    for (variant, settings) in variants() {
        let mut priorities = BTreeSet::new();
        for (name, rule) in rules(&settings) {
            let world = ["*", "Internet", "0.0.0.0/0"];
            let from = rule["sourceAddressPrefix"].as_str().unwrap_or_default();
            assert!(
                rule["access"] == "Deny" || !world.contains(&from),
                "{variant}: {name}"
            );
            let priority = rule["priority"].as_u64().unwrap();
            assert!((100..=4096).contains(&priority) && priorities.insert(priority));
        }
    }
}

#[test]
fn each_machine_has_a_route_where_azure_routes() {
    let template = template(&rendered(&small("", "network: {mode: routed}\n")));
    let table = of_type(&template, "Microsoft.Network/routeTables")[0];
    let routes: Vec<(&str, &str)> = table["properties"]["routes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|route| {
            let route = &route["properties"];
            assert_eq!(route["nextHopType"], "VirtualAppliance");
            let text = |key: &str| route[key].as_str().unwrap();
            (text("addressPrefix"), text("nextHopIpAddress"))
        })
        .collect();
    assert_eq!(
        routes,
        [
            ("10.244.0.0/24", "10.0.0.10"),
            ("10.244.1.0/24", "10.0.0.11")
        ]
    );
    let network = of_type(&template, "Microsoft.Network/virtualNetworks")[0].to_string();
    assert!(network.contains("'small-routes'"), "{network}");
}

#[test]
fn machines_are_spread_over_zones_or_sets() {
    let folder = rendered(&documented()[1]);
    let in_zones = template(&folder);
    let zones: Vec<&Value> = of_type(&in_zones, VMS)
        .iter()
        .map(|vm| &vm["zones"])
        .collect();
    assert_eq!(zones, [&json!(["1"]), &json!(["2"]), &json!(["3"])]);
    assert!(of_type(&in_zones, "Microsoft.Compute/availabilitySets").is_empty());
    let pool = of_type(&in_zones, SCALE_SETS)[0];
    assert_eq!(pool["zones"], json!(["1", "2", "3"]));
    assert_eq!(pool["sku"]["capacity"], 3);
    assert_eq!(pool["properties"]["overprovision"], false);
    let inside = of_type(&in_zones, BALANCERS)[1];
    let frontend = &inside["properties"]["frontendIPConfigurations"][0];
    assert_eq!(frontend["properties"]["privateIPAddress"], "10.0.0.100");
    assert!(of_type(&in_zones, BALANCERS)[0]["properties"]["loadBalancingRules"].is_null());
    let in_sets = template(&rendered(&small("faultDomains: 3", "")));
    for set in of_type(&in_sets, "Microsoft.Compute/availabilitySets") {
        assert_eq!(set["properties"]["platformFaultDomainCount"], 3);
    }
    for vm in of_type(&in_sets, VMS) {
        assert!(vm["zones"].is_null() && vm["properties"]["availabilitySet"]["id"].is_string());
    }
}

/// Custom-data, decoded, is the document byte for byte, and fits; the template
/// has nothing of it.
#[test]
fn custom_data_is_the_document_byte_for_byte() {
    let mut seen = 0;
    for (variant, settings) in variants() {
        for extra in ["", "gzip: true\n"] {
            let folder = rendered(&format!("{extra}{settings}"));
            let (template, parameters) = (template(&folder), parameters(&folder));
            let text = folder.read("out/azure/template.json");
            let mut used = BTreeSet::new();
            let machines = of_type(&template, VMS);
            let sets = of_type(&template, SCALE_SETS);
            let profiles = machines
                .iter()
                .map(|vm| (vm, &vm["properties"]["osProfile"]))
                .chain(sets.iter().map(|set| {
                    (
                        set,
                        &set["properties"]["virtualMachineProfile"]["osProfile"],
                    )
                }));
            for (machine, os) in profiles {
                let name = machine["name"].as_str().unwrap();
                let own = format!("out/{name}/user-data");
                let document = match folder.path(&own).exists() {
                    true => std::fs::read(folder.path(&own)).unwrap(),
                    false => std::fs::read(folder.path("out/node/user-data")).unwrap(),
                };
                let expression = os["customData"].as_str().unwrap();
                let parameter = expression.strip_prefix("[parameters('").unwrap();
                let parameter = parameter.strip_suffix("')]").unwrap();
                assert_eq!(template["parameters"][parameter]["type"], "securestring");
                let encoded = parameters["parameters"][parameter]["value"]
                    .as_str()
                    .unwrap();
                assert!(
                    STANDARD.decode(encoded).unwrap() == document,
                    "{variant}: {name}"
                );
                assert!(document.len() <= 65_535);
                assert!(!text.contains(&encoded[..100]));
                used.insert(parameter.to_owned());
                seen += 1;
                let key = &os["linuxConfiguration"]["ssh"]["publicKeys"][0]["keyData"];
                assert_eq!(key, PUBLIC_KEY.trim());
                assert_eq!(
                    os["linuxConfiguration"]["disablePasswordAuthentication"],
                    true
                );
            }
            // Every parameter is declared, given and used.
            let given: BTreeSet<String> = parameters["parameters"]
                .as_object()
                .unwrap()
                .keys()
                .cloned()
                .collect();
            assert_eq!(given, used, "{variant}");
            let declared = template["parameters"].as_object().unwrap().keys();
            let declared: BTreeSet<String> = declared
                .filter(|p| p.starts_with("customData_"))
                .cloned()
                .collect();
            assert_eq!(declared, used, "{variant}");
            assert!(!text.contains("PRIVATE KEY"));
        }
    }
    assert!(seen > 20, "{seen}");
}

#[test]
fn what_has_keys_is_for_its_owner_alone() {
    let folder = rendered(&documented()[0]);
    let tree = folder.tree();
    for (file, mode) in [("parameters.json", 0o600), ("up", 0o700), ("down", 0o700)] {
        assert_eq!(tree[&format!("out/azure/{file}")].1, mode, "{file}");
    }
    let again = folder.run(&["render", "-o", "out"]);
    let told = String::from_utf8(again.stderr).unwrap();
    assert!(!told.contains("azure"), "{told}");
    let diff = folder.kgen().args(["diff", "-o", "out"]).output().unwrap();
    assert!(diff.status.success() && diff.stdout.is_empty());
    folder.write("cluster.yaml", &documented()[0].replace("50001", "50011"));
    let diff = folder.kgen().args(["diff", "-o", "out"]).output().unwrap();
    let told = String::from_utf8(diff.stdout).unwrap();
    assert_eq!(told, "azure/template.json: changed\nazure/up: changed\n");
}

/// Without a mapping azure, or on another platform, nothing is made.
#[test]
fn only_what_is_asked_for_is_made() {
    let folder = Folder::with(&format!("platform: azure\n{CLUSTER}"));
    folder.run(&["render", "-o", "out"]);
    assert!(!folder.path("out/azure").exists());
    let settings = small("", "").replace("platform: azure\n", "");
    let folder = Folder::with(&settings.replace("azure: {}", "azure: {vnet: 10.0.0.0/16}"));
    let told = String::from_utf8(folder.run(&["render", "-o", "out"]).stderr).unwrap();
    assert!(
        told.contains("nothing is made of it without platform: azure"),
        "{told}"
    );
    assert!(!folder.path("out/azure").exists());
    folder.run(&[
        "render",
        "-o",
        "out",
        "--platform",
        "azure",
        "--format",
        "ignition",
    ]);
    let template = template(&folder);
    let image = &of_type(&template, VMS)[0]["properties"]["storageProfile"]["imageReference"];
    assert_eq!(image["publisher"], "kinvolk");
}
