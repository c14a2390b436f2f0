//! Routes of a real Neutron's routers.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::programs::Programs;

use super::cloud::Cloud;
use super::{documented, good, named, settings};

/// Routes of the router that `up` made: a foreign one, a wrong one and none.
pub fn put_right(cloud: &Cloud, programs: &Programs) -> Result<()> {
    let routes = |cloud: &Cloud| -> Result<Value> {
        let router = named(&cloud.list("routers")?, "demo")?.clone();
        Ok(router["routes"].clone())
    };
    let router = named(&cloud.list("routers")?, "demo")?["id"].clone();
    let path = format!(
        "routers/{}/add_extraroutes",
        router.as_str().context("no ID")?
    );
    let foreign = json!({"destination": "192.168.0.0/16", "nexthop": "10.0.0.31"});
    let wrong = json!({"destination": "10.244.1.0/24", "nexthop": "10.0.0.32"});
    let body = json!({"router": {"routes": [foreign, wrong]}});
    cloud.ask("a-token", "PUT", &path, Some(&body))?;
    let plan = cloud.run(&programs.kgen, &["openstack", "routes", "plan"])?;
    ensure!(plan.code() == 3, "{plan:?}");
    for word in [
        "foreign  192.168.0.0/16",
        "replace  10.244.1.0/24",
        "add      10.244.0.0/24",
    ] {
        ensure!(plan.stdout.contains(word), "{word}: {}", plan.stdout);
    }
    good(cloud.run(&programs.kgen, &["openstack", "routes", "apply"])?)?;
    let wanted = [
        foreign.clone(),
        json!({"destination": "10.244.0.0/24", "nexthop": "10.0.0.20"}),
        json!({"destination": "10.244.1.0/24", "nexthop": "10.0.0.31"}),
        json!({"destination": "10.244.2.0/24", "nexthop": "10.0.0.32"}),
    ];
    let have = routes(cloud)?;
    let have = have.as_array().context("no routes")?;
    ensure!(
        have.len() == 4 && wanted.iter().all(|route| have.contains(route)),
        "{have:?}"
    );
    good(cloud.run(&programs.kgen, &["openstack", "routes", "plan"])?)?;
    // A machine with the router's own address.
    let clash = cloud.run(
        &programs.kgen,
        &[
            "openstack",
            "routes",
            "apply",
            "--router",
            "demo",
            "--set",
            "openstack.existingNetwork=demo",
            "--set",
            "openstack.existingSubnet=demo",
            "--set",
            "nodes[4].address=10.0.0.1",
        ],
    )?;
    ensure!(clash.code() == 2, "{clash:?}");
    ensure!(
        clash
            .stderr
            .contains("node-1: 10.0.0.1 is the router's own address"),
        "{clash:?}"
    );
    ensure!(
        routes(cloud)?.as_array() == Some(have),
        "something was changed"
    );
    Ok(())
}

#[test]
fn a_router_of_a_neutron_that_writes_all_routes_at_once() -> Result<()> {
    let programs = Programs::build()?;
    let cloud = Cloud::start("extraroute-atomic")?;
    let make = |kind: &str, body: Value| -> Result<Value> {
        let answer = cloud.ask(
            "a-token",
            "POST",
            &format!("{kind}s"),
            Some(&json!({kind: body})),
        )?;
        Ok(answer[kind].clone())
    };
    let network = make("network", json!({"name": "n"}))?;
    let subnet = json!({"network_id": network["id"], "cidr": "10.0.0.0/24", "ip_version": 4});
    let subnet = make("subnet", subnet)?;
    let router = make("router", json!({"name": "edge"}))?;
    let path = format!("routers/{}", router["id"].as_str().context("no ID")?);
    let join = json!({"subnet_id": subnet["id"]});
    cloud.ask(
        "a-token",
        "PUT",
        &format!("{path}/add_router_interface"),
        Some(&join),
    )?;
    let foreign = json!({"destination": "192.168.0.0/16", "nexthop": "10.0.0.31"});
    let wrong = json!({"destination": "10.244.1.0/24", "nexthop": "10.0.0.32"});
    let body = json!({"router": {"routes": [foreign, wrong]}});
    cloud.ask("a-token", "PUT", &path, Some(&body))?;
    settings(&cloud.folder(), documented(0))?;
    let atomic = cloud.ask("a-token", "GET", "extensions/extraroute-atomic", None);
    ensure!(atomic.is_err(), "it has the extension");
    let flags = ["openstack", "routes", "apply", "--router", "edge", "--json"];
    let output = cloud.run(&programs.kgen, &flags)?;
    let told: Value = serde_json::from_str(&output.ok()?)?;
    ensure!(told["done"] == true && told["router"] == "edge", "{told}");
    let after = cloud.ask("a-token", "GET", &path, None)?["router"]["routes"].clone();
    let after = after.as_array().context("no routes")?;
    ensure!(
        after.len() == 4 && after.contains(&foreign) && !after.contains(&wrong),
        "{after:?}"
    );
    let plan = cloud.run(
        &programs.kgen,
        &["openstack", "routes", "plan", "--router", "edge"],
    )?;
    ensure!(plan.code() == 0, "{plan:?}");
    Ok(())
}
