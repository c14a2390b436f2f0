//! Applies the folder's objects, and removes what has left it.
//!
//! What a master made carries a label and stands in the inventory; both are
//! needed for it to be removed. What was there before is changed as the folder
//! says, and never removed.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::Memory;
use super::applied::{Live, Wanted};
use super::discovery::Discovery;
use super::folder::Folder;
use super::inventory::{Id, Inventory};
use super::roles::roles;
use crate::error::{Code, Error, Result};
use crate::machine::Machine;
use crate::sys::api::Api;
use units::types::Role;

/// The label of what knode made.
/// Source: Kubernetes documentation, "Recommended Labels".
pub const LABEL: &str = "app.kubernetes.io/managed-by";
/// Its value.
pub const OURS: &str = "knode";

/// Kinds that hold what others made: they are never removed with their file.
const HOLDERS: [&str; 4] = [
    "Namespace",
    "CustomResourceDefinition",
    "PersistentVolume",
    "PersistentVolumeClaim",
];

/// Makes the cluster's objects those of the folder; says what was done.
///
/// # Errors
///
/// The first object or file that fails, after all others had their turn.
pub async fn keep(
    api: &Api,
    machine: &Machine,
    folder: Folder,
    memory: &mut Memory,
    live: &Live,
) -> Result<String> {
    let masters: BTreeSet<String> = roles(machine)
        .into_iter()
        .filter(|(_, role)| *role == Role::Master)
        .map(|(name, _)| name.to_string())
        .collect();
    let mut inventory = Inventory::read(api, &machine.name, &masters).await?;
    let Memory { discovery, applied } = memory;
    let mut failures = folder.unreadable;
    // Without all files it is not known what has left the folder.
    let complete = failures.is_empty();

    let mut wanted = Vec::new();
    for (file, object) in folder.objects {
        match identify(api, discovery, &object).await {
            Ok(id) => wanted.push((id, object)),
            Err(error) => failures.push(error.in_file(&file)),
        }
    }
    let ids: BTreeSet<Id> = wanted.iter().map(|(id, _)| id.clone()).collect();
    let all = inventory.own.union(&ids).cloned().collect();
    let left: Vec<Id> = inventory.own.difference(&ids).cloned().collect();
    // First what will be made, so that it is known even after a sudden end.
    inventory.write(api, &machine.name, all).await?;

    let mut kept = 0;
    for (id, object) in wanted {
        let digest = Wanted::of(&object);
        if applied.holds(&id, digest, live) {
            kept += 1;
            continue;
        }
        match apply(api, discovery, &id, object).await {
            Ok(answer) => {
                applied.remember(id, digest, &answer);
                kept += 1;
            }
            Err(error) => failures.push(error),
        }
    }
    let mut removed = 0;
    if complete && failures.is_empty() {
        for id in &left {
            applied.forget(id);
            if !inventory.others.contains(id) && remove(api, discovery, id).await? {
                tracing::info!("{id} has left the folder, and was removed");
                removed += 1;
            }
        }
        inventory.write(api, &machine.name, ids).await?;
    }
    let more = failures.len().saturating_sub(1);
    match failures.into_iter().next() {
        None => Ok(format!("{kept} objects kept, {removed} removed")),
        Some(first) if more == 0 => Err(first),
        Some(first) => Err(Error::new(
            first.code(),
            format!("{} (and {more} more)", first.story()),
        )),
    }
}

trait InFile {
    fn in_file(self, file: &str) -> Self;
}

impl InFile for Error {
    fn in_file(self, file: &str) -> Self {
        Error::new(self.code(), format!("{file}: {}", self.story()))
    }
}

async fn identify(api: &Api, discovery: &mut Discovery, object: &Value) -> Result<Id> {
    let text = |field: &str| {
        let text = object.pointer(field).and_then(Value::as_str);
        text.unwrap_or_default().to_owned()
    };
    let (api_version, kind) = (text("/apiVersion"), text("/kind"));
    let place = discovery.place(api, &api_version, &kind).await?;
    let place = place.ok_or_else(|| {
        Error::new(
            Code::ApiRefused,
            format!("the API has no {kind} in {api_version}"),
        )
    })?;
    let namespace = match text("/metadata/namespace") {
        _ if !place.namespaced => String::new(),
        namespace if namespace.is_empty() => "default".to_owned(),
        namespace => namespace,
    };
    Ok(Id {
        api_version,
        kind,
        namespace,
        name: text("/metadata/name"),
    })
}

async fn apply(api: &Api, discovery: &mut Discovery, id: &Id, mut object: Value) -> Result<Value> {
    let path = discovery.path(api, id).await?;
    let found = api.get(&path).await?;
    if found.as_ref().is_none_or(is_ours) {
        object["metadata"]["labels"][LABEL] = json!(OURS);
    }
    api.apply(&path, &object).await
}

async fn remove(api: &Api, discovery: &mut Discovery, id: &Id) -> Result<bool> {
    if HOLDERS.contains(&id.kind.as_str()) {
        tracing::info!("{id} has left the folder, and stays: it holds what others made");
        return Ok(false);
    }
    // A kind that is gone took its objects with it.
    let place = discovery.place(api, &id.api_version, &id.kind).await?;
    if place.is_none() {
        return Ok(false);
    }
    let path = discovery.path(api, id).await?;
    match api.get(&path).await? {
        Some(found) if is_ours(&found) => {
            let uid = found["metadata"]["uid"].as_str().unwrap_or_default();
            api.delete(&path, uid).await
        }
        _ => Ok(false),
    }
}

fn is_ours(object: &Value) -> bool {
    object["metadata"]["labels"][LABEL] == OURS
}
