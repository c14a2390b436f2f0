//! `kgen openstack routes` where Keystone and Neutron do as they are told;
//! tests/openstack asks a real Neutron. (P50)

mod common;

use common::Folder;
use common::cloud::Cloud;
use common::openstack::{routes as run, small};
use serde_json::{Value, json};

const ROUTED: &str = "network: {mode: routed}\n";

fn route(destination: &str, nexthop: &str) -> Value {
    json!({"destination": destination, "nexthop": nexthop})
}

fn folder() -> Folder {
    Folder::with(&small("", ROUTED))
}

fn with_password(cloud: &Cloud, words: &[&str]) -> (i32, String, String) {
    let url = format!("{}/identity", cloud.url);
    let variables = [
        ("OS_AUTH_URL", url.as_str()),
        ("OS_USERNAME", "ops"),
        ("OS_PASSWORD", "hunter2"),
        ("OS_PROJECT_NAME", "demo"),
    ];
    run(&folder(), &variables, words)
}

#[test]
fn missing_and_wrong_routes_are_put_right_and_foreign_ones_stay() {
    for atomic in [true, false] {
        let cloud = Cloud::new();
        let before = [
            route("192.168.0.0/16", "10.0.0.99"),
            route("10.244.0.0/24", "10.0.0.77"),
            route("10.244.7.0/24", "10.0.0.17"),
        ];
        cloud.with(|shelf| (shelf.routes, shelf.atomic) = (before.to_vec(), atomic));
        let (status, out, _) = with_password(&cloud, &["plan"]);
        assert_eq!(status, 3, "{out}");
        let lines: Vec<String> = out
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(
            lines,
            [
                "replace 10.244.0.0/24 via 10.0.0.10 m was via 10.0.0.77",
                "add 10.244.1.0/24 via 10.0.0.11 n",
                "remove 10.244.7.0/24 was via 10.0.0.17",
                "foreign 192.168.0.0/16 via 10.0.0.99"
            ]
        );
        assert_eq!(cloud.with(|shelf| shelf.routes.clone()), before);
        let (status, out, err) = with_password(&cloud, &["apply", "--json"]);
        assert_eq!(status, 0, "{out}{err}");
        let told: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(
            (&told["done"], &told["complete"]),
            (&json!(true), &json!(true))
        );
        let after = cloud.with(|shelf| shelf.routes.clone());
        assert_eq!(
            after,
            [
                route("192.168.0.0/16", "10.0.0.99"),
                route("10.244.0.0/24", "10.0.0.10"),
                route("10.244.1.0/24", "10.0.0.11")
            ],
            "{atomic}"
        );
        let changes = || cloud.with(|s| s.asked.iter().filter(|a| a.starts_with("PUT")).count());
        let so_far = changes();
        let (status, _, _) = with_password(&cloud, &["apply"]);
        assert_eq!((status, changes()), (0, so_far), "it was changed again");
        let (status, _, _) = with_password(&cloud, &["plan"]);
        assert_eq!(status, 0);
        let (status, _, _) = with_password(&cloud, &["apply", "--none"]);
        let left = cloud.with(|shelf| shelf.routes.clone());
        assert_eq!(
            (status, left),
            (0, vec![route("192.168.0.0/16", "10.0.0.99")])
        );
    }
}

#[test]
fn whoever_changes_the_router_meanwhile_loses_nothing() {
    for atomic in [true, false] {
        let cloud = Cloud::new();
        let theirs = route("172.16.0.0/12", "10.0.0.98");
        cloud.with(|shelf| {
            shelf.atomic = atomic;
            shelf.faults.push_back((409, Some(theirs.clone())));
            shelf.faults.push_back((503, None));
            shelf.sulks.extend([503, 502]);
        });
        let (status, out, err) = with_password(&cloud, &["apply"]);
        assert_eq!(status, 0, "{out}{err}");
        let after = cloud.with(|shelf| shelf.routes.clone());
        assert_eq!(after.len(), 3, "{after:?}");
        assert_eq!(after[0], theirs);
    }
    // Between the look and the change, without a word.
    let cloud = Cloud::new();
    cloud.with(|shelf| {
        shelf.atomic = false;
        shelf
            .faults
            .push_back((412, Some(route("172.16.0.0/12", "10.0.0.98"))));
    });
    let (status, _, err) = with_password(&cloud, &["apply"]);
    assert_eq!(status, 0, "{err}");
    assert_eq!(cloud.with(|shelf| shelf.routes.len()), 3);
}

#[test]
fn what_could_not_be_done_is_named() {
    let cloud = Cloud::new();
    cloud.with(|shelf| {
        shelf.routes.push(route("10.244.0.0/24", "10.0.0.77"));
        // Adding is well; what is wrong stays, however often it is tried.
        shelf.faults.extend([(400, None)]);
    });
    let (status, _, err) = with_password(&cloud, &["apply"]);
    assert_eq!(status, 1);
    for part in [
        "add_extraroutes: 400 Bad Request: fault 400",
        "not done: add 10.244.0.0/24 via 10.0.0.10, add 10.244.1.0/24 via 10.0.0.11, \
         remove 10.244.0.0/24 via 10.0.0.77",
    ] {
        assert!(err.contains(part), "{part}: {err}");
    }
    cloud.with(|shelf| shelf.faults.extend((0..5).map(|_| (503, None))));
    let (status, _, err) = with_password(&cloud, &["apply"]);
    assert_eq!(status, 1);
    assert!(
        err.contains("503") && err.contains("tried 5 times; not done: add"),
        "{err}"
    );
    assert_eq!(cloud.with(|shelf| shelf.routes.len()), 1);
}

#[test]
fn a_clash_with_the_router_changes_nothing() {
    let cloud = Cloud::new();
    cloud.with(|shelf| shelf.address = "10.0.0.10");
    let (status, _, err) = with_password(&cloud, &["apply"]);
    assert_eq!(status, 2, "{err}");
    assert!(
        err.contains("m: 10.0.0.10 is the router's own address"),
        "{err}"
    );
    assert_eq!(cloud.with(|shelf| shelf.routes.len()), 0);
}

#[test]
fn missing_credentials_are_named_all_at_once() {
    let folder = folder();
    let (status, _, err) = run(&folder, &[], &["plan"]);
    assert_eq!(status, 2);
    for part in ["no variable OS_… is set", "clouds.yaml"] {
        assert!(err.contains(part), "{part}: {err}");
    }
    let (status, _, err) = run(
        &folder,
        &[("OS_USERNAME", "ops"), ("OS_REGION_NAME", "r")],
        &["plan"],
    );
    assert_eq!(status, 2);
    for part in [
        "auth.auth_url (OS_AUTH_URL)",
        "auth.password (OS_PASSWORD)",
        "auth.project_name (OS_PROJECT_NAME)",
    ] {
        assert!(err.contains(part), "{part}: {err}");
    }
    assert!(!err.contains("OS_USERNAME)"), "{err}");
    let url = ("OS_AUTH_URL", "http://127.0.0.1:1");
    let kind = ("OS_AUTH_TYPE", "v3applicationcredential");
    let (_, _, err) = run(&folder, &[url, kind], &["plan"]);
    for part in [
        "OS_APPLICATION_CREDENTIAL_ID",
        "OS_APPLICATION_CREDENTIAL_SECRET",
    ] {
        assert!(err.contains(part), "{part}: {err}");
    }
    let (status, _, err) = run(
        &folder,
        &[url, ("OS_AUTH_TYPE", "v3oidcpassword")],
        &["plan"],
    );
    assert!(
        status == 2 && err.contains("auth_type v3oidcpassword: kgen does not know it"),
        "{err}"
    );
    let (status, _, err) = run(
        &folder,
        &[url, ("OS_TOKEN", "a-token"), ("OS_INSECURE", "true")],
        &["plan"],
    );
    assert!(status == 2 && err.contains("OS_CACERT"), "{err}");
}

#[test]
fn clouds_are_read_as_every_client_reads_them() {
    let cloud = Cloud::new();
    let folder = folder();
    let login = || cloud.with(|shelf| shelf.logins.pop().unwrap());
    let clouds = format!(
        "clouds:\n  first:\n    auth:\n      auth_url: {0}/identity/v3\n      username: ops\n      \
         project_name: demo\n      user_domain_name: Users\n      project_domain_name: Projects\n    \
         region_name: here\n  second:\n    auth_type: v3applicationcredential\n    auth:\n      \
         auth_url: {0}/identity\n      application_credential_id: c1\n      \
         application_credential_secret: hunter3\n",
        cloud.url
    );
    folder.write("clouds.yaml", &clouds);
    folder.write(
        "secure.yaml",
        "clouds: {first: {auth: {password: hunter2}}}\n",
    );
    let (status, _, err) = run(&folder, &[], &["plan"]);
    assert!(status == 2 && err.contains("it has first, second"), "{err}");
    let (status, _, err) = run(&folder, &[("OS_CLOUD", "first")], &["plan"]);
    assert_eq!(status, 3, "{err}");
    assert_eq!(
        login(),
        json!({"auth": {
            "identity": {"methods": ["password"], "password": {"user": {
                "name": "ops", "domain": {"name": "Users"}, "password": "hunter2"}}},
            "scope": {"project": {"name": "demo", "domain": {"name": "Projects"}}}
        }})
    );
    // The flag is before the variable.
    let words = ["plan", "--os-cloud", "second"];
    let (status, _, err) = run(&folder, &[("OS_CLOUD", "first")], &words);
    assert_eq!(status, 3, "{err}");
    assert_eq!(
        login(),
        json!({"auth": {"identity": {"methods": ["application_credential"],
            "application_credential": {"id": "c1", "secret": "hunter3"}}}})
    );
    let (status, _, err) = run(&folder, &[], &["plan", "--os-cloud", "third"]);
    assert!(status == 2 && err.contains("has no cloud third"), "{err}");
    // A file elsewhere that is named is before all.
    folder.write("other.yaml", &clouds.replace("second", "other"));
    let other = folder.path("other.yaml").display().to_string();
    let variables = [
        ("OS_CLIENT_CONFIG_FILE", other.as_str()),
        ("OS_CLOUD", "other"),
    ];
    assert_eq!(run(&folder, &variables, &["plan"]).0, 3);
    // In the home folder, if there is none here.
    std::fs::create_dir_all(folder.path("home/.config/openstack")).unwrap();
    for file in ["clouds.yaml", "secure.yaml"] {
        std::fs::rename(
            folder.path(file),
            folder.path("home/.config/openstack").join(file),
        )
        .unwrap();
    }
    assert_eq!(run(&folder, &[("OS_CLOUD", "first")], &["plan"]).0, 3);
    // What is broken is told by its place alone.
    folder.write(
        "clouds.yaml",
        "clouds:\n  first: {auth: {password: hunter2\n",
    );
    let (status, _, err) = run(&folder, &[], &["plan"]);
    assert!(status == 2 && err.contains("clouds.yaml:"), "{err}");
}

#[test]
fn a_cloud_that_does_not_fit_is_told_how() {
    let cloud = Cloud::new();
    let url = format!("{}/identity", cloud.url);
    let token = [
        ("OS_AUTH_URL", url.as_str()),
        ("OS_TOKEN", "an-older-token"),
        ("OS_AUTH_TYPE", "token"),
    ];
    let folder = folder();
    assert_eq!(run(&folder, &token, &["plan"]).0, 3);
    cloud.with(|shelf| shelf.regions = vec!["here", "there"]);
    let (status, _, err) = run(&folder, &token, &["plan"]);
    assert!(
        status == 1 && err.contains("regions here, there: write region_name"),
        "{err}"
    );
    let mut with_region = token.to_vec();
    with_region.push(("OS_REGION_NAME", "nowhere"));
    let (_, _, err) = run(&folder, &with_region, &["plan"]);
    assert!(
        err.contains("region nowhere; there is one in: here, there"),
        "{err}"
    );
    with_region.pop();
    with_region.push(("OS_REGION_NAME", "there"));
    assert_eq!(run(&folder, &with_region, &["plan"]).0, 3);
    let wrong = [token[0], ("OS_TOKEN", "not-this-one")];
    let (status, _, err) = run(&folder, &wrong, &["plan"]);
    assert!(
        status == 1 && err.contains("Keystone does not let these credentials in"),
        "{err}"
    );
    let elsewhere = format!("{}/elsewhere", cloud.url);
    let (_, _, err) = run(&folder, &[("OS_AUTH_URL", &elsewhere), token[1]], &["plan"]);
    assert!(
        err.contains("401") || err.contains("not Keystone's address"),
        "{err}"
    );
    with_region.push(("OS_NETWORK_ENDPOINT_OVERRIDE", &elsewhere));
    let (status, _, err) = run(&folder, &with_region, &["plan"]);
    assert!(status == 1 && err.contains("404"), "{err}");
    with_region.pop();
    let (status, _, err) = run(&folder, &with_region, &["plan", "--router", "edge"]);
    assert!(
        status == 1 && err.contains("no router is called edge"),
        "{err}"
    );
    assert_eq!(run(&folder, &with_region, &["plan", "--router", "r1"]).0, 3);
    // No Keystone at all, and a token that is sent as it is.
    let endpoint = format!("{}/network", cloud.url);
    let direct = [
        ("OS_AUTH_TYPE", "admin_token"),
        ("OS_ENDPOINT", endpoint.as_str()),
        ("OS_TOKEN", "a-token"),
    ];
    assert_eq!(run(&folder, &direct, &["plan"]).0, 3);
    let (status, _, err) = run(&folder, &[("OS_AUTH_TYPE", "none"), direct[1]], &["plan"]);
    assert!(
        status == 1 && err.contains("Neutron does not take the token"),
        "{err}"
    );
    let vxlan = Folder::with(&small("", ""));
    let (status, _, err) = run(&vxlan, &direct, &["plan"]);
    assert!(status == 2 && err.contains("routed"), "{err}");
}

#[test]
fn ranges_that_nobody_tells_are_neither_made_nor_removed() {
    let cloud = Cloud::new();
    cloud.with(|shelf| shelf.routes.push(route("10.244.7.0/24", "10.0.0.17")));
    let folder = Folder::with(&small("", &format!("{ROUTED}pools: [{{name: p}}]\n")));
    let endpoint = format!("{}/network", cloud.url);
    let direct = [
        ("OS_AUTH_TYPE", "admin_token"),
        ("OS_ENDPOINT", endpoint.as_str()),
        ("OS_TOKEN", "a-token"),
    ];
    let (status, out, err) = run(&folder, &direct, &["apply", "--json"]);
    assert_eq!(status, 0, "{err}");
    assert!(
        err.contains("there is no pki/ca.crt") && err.contains("nothing is removed"),
        "{err}"
    );
    let told: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(told["complete"], false);
    assert!(cloud.with(|shelf| shelf.routes.contains(&route("10.244.7.0/24", "10.0.0.17"))));
}
