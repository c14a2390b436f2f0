//! Which labels and taints of the Node are the settings': knode keeps their
//! names in annotations, so that it removes what it put there and nothing that
//! others did. Pure.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use units::node_config::Node;

/// The names of labels, separated by commas.
const LABELS: &str = "knode/labels";
/// Taints as kubectl writes them, `KEY=VALUE:EFFECT`, separated by commas; empty
/// where there are none, absent where nobody noted them.
const TAINTS: &str = "knode/taints";

/// The annotations of a Node that is born with all of it.
pub fn annotations(node: &Node) -> Map<String, Value> {
    let mut annotations = Map::new();
    if !node.labels.is_empty() {
        annotations.insert(LABELS.to_owned(), json!(join(&labels(node))));
    }
    annotations.insert(TAINTS.to_owned(), json!(join(&taints(node))));
    annotations
}

/// What is to be merged into the metadata of a Node that is there: labels of
/// the settings, those that no longer are, and which they are now. Empty where
/// the Node is as it should be.
pub fn metadata(node: &Node, found: &Value) -> Map<String, Value> {
    let there = &found["metadata"]["labels"];
    let mut changes: Map<String, Value> = node
        .labels
        .iter()
        .filter(|(key, value)| there[key.as_str()].as_str() != Some(value.as_str()))
        .map(|(key, value)| (key.clone(), json!(value)))
        .collect();
    let wanted = labels(node);
    for gone in recorded(found, LABELS).difference(&wanted) {
        if there.get(gone).is_some() {
            changes.insert(gone.clone(), Value::Null);
        }
    }
    let mut metadata = Map::new();
    if !changes.is_empty() {
        metadata.insert("labels".to_owned(), Value::Object(changes));
    }
    if recorded(found, LABELS) != wanted {
        let names = match wanted.is_empty() {
            true => Value::Null,
            false => json!(join(&wanted)),
        };
        metadata.insert("annotations".to_owned(), json!({(LABELS): names}));
    }
    metadata
}

/// The patch that makes the Node's taints follow the settings; `None` where
/// these are as they were. A Node is born with its taints, and others may take
/// them away: only what the settings add or drop afterwards changes something.
/// On the first look it is only noted which there are.
pub fn taint_changes(node: &Node, found: &Value) -> Option<Value> {
    let wanted = taints(node);
    let known = recorded(found, TAINTS);
    let noted = found["metadata"]["annotations"].get(TAINTS).is_some();
    if noted && known == wanted {
        return None;
    }
    let mut patch = json!({"metadata": {
        "annotations": {(TAINTS): join(&wanted)},
        // Whoever taints the Node at this moment is not overruled.
        "resourceVersion": found["metadata"]["resourceVersion"],
    }});
    if !noted {
        return Some(patch);
    }
    let there = found["spec"]["taints"].as_array().into_iter().flatten();
    let dropped = |taint: &Value| {
        let name = name_of(taint);
        known.contains(&name) && !wanted.contains(&name)
    };
    let mut list: Vec<Value> = there.filter(|taint| !dropped(taint)).cloned().collect();
    for taint in node.taints.iter().map(|taint| json!(taint)) {
        if !known.contains(&name_of(&taint)) {
            // There is one of a key and an effect.
            list.retain(|one| one["key"] != taint["key"] || one["effect"] != taint["effect"]);
            list.push(taint);
        }
    }
    patch["spec"] = json!({"taints": list});
    Some(patch)
}

/// The names of taints that differ, for those who may change them.
pub fn differing_taints(node: &Node, found: &Value) -> Vec<String> {
    let (wanted, known) = (taints(node), recorded(found, TAINTS));
    wanted.symmetric_difference(&known).cloned().collect()
}

fn labels(node: &Node) -> BTreeSet<String> {
    node.labels.keys().cloned().collect()
}

fn taints(node: &Node) -> BTreeSet<String> {
    node.taints
        .iter()
        .map(|taint| name_of(&json!(taint)))
        .collect()
}

fn name_of(taint: &Value) -> String {
    let word = |key: &str| taint[key].as_str().unwrap_or_default();
    match word("value") {
        "" => format!("{}:{}", word("key"), word("effect")),
        value => format!("{}={value}:{}", word("key"), word("effect")),
    }
}

fn recorded(found: &Value, key: &str) -> BTreeSet<String> {
    let text = found["metadata"]["annotations"][key].as_str();
    let names = text.unwrap_or_default().split(',');
    let names = names.filter(|name| !name.is_empty());
    names.map(str::to_owned).collect()
}

fn join(names: &BTreeSet<String>) -> String {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    names.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use units::NodeConfig;

    fn sample() -> Node {
        let text = include_str!("../../../../units/testdata/node-v1.yaml");
        serde_yaml::from_str::<NodeConfig>(text).unwrap().node
    }

    fn found(annotations: Value, labels: Value, taints: Value) -> Value {
        json!({
            "metadata": {"annotations": annotations, "labels": labels, "resourceVersion": "7"},
            "spec": {"taints": taints},
        })
    }

    #[test]
    fn labels_that_knode_set_go_and_others_stay() {
        let mut node = sample();
        let there = found(
            json!({"knode/labels": "example.com/old,example.com/rack"}),
            json!({"example.com/old": "1", "example.com/rack": "a1", "mine": "1"}),
            json!([]),
        );
        let expected = json!({
            "labels": {"example.com/old": null},
            "annotations": {"knode/labels": "example.com/rack"},
        });
        assert_eq!(json!(metadata(&node, &there)), expected);
        node.labels.clear();
        let expected = json!({
            "labels": {"example.com/old": null, "example.com/rack": null},
            "annotations": {"knode/labels": null},
        });
        assert_eq!(json!(metadata(&node, &there)), expected);
        let settled = found(json!({}), json!({"mine": "1"}), json!([]));
        assert!(metadata(&node, &settled).is_empty());
    }

    #[test]
    fn a_node_of_which_nothing_is_noted_loses_nothing() {
        let node = sample();
        let labels = json!({"example.com/rack": "b2", "example.com/old": "1"});
        let expected = json!({
            "labels": {"example.com/rack": "a1"},
            "annotations": {"knode/labels": "example.com/rack"},
        });
        let there = found(json!({}), labels, json!([]));
        assert_eq!(json!(metadata(&node, &there)), expected);
    }

    #[test]
    fn only_what_the_settings_add_or_drop_changes_the_taints() {
        let mut node = sample();
        let gpu = json!({"key": "example.com/gpu", "value": "yes", "effect": "NoSchedule"});
        let theirs = json!({"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"});
        let noted = json!({"knode/taints": "example.com/gpu=yes:NoSchedule"});
        // Somebody took it away, as cloud providers do: it stays away.
        let there = found(noted.clone(), json!({}), json!([theirs]));
        assert_eq!(taint_changes(&node, &there), None);
        // Born with it: only noted.
        let there = found(json!({}), json!({}), json!([gpu, theirs]));
        let patch = taint_changes(&node, &there).unwrap();
        assert!(patch.get("spec").is_none());
        assert_eq!(patch["metadata"]["annotations"], noted);
        // Dropped.
        let there = found(noted.clone(), json!({}), json!([gpu, theirs]));
        let added = node.taints.remove(0);
        let patch = taint_changes(&node, &there).unwrap();
        assert_eq!(patch["spec"]["taints"], json!([theirs]));
        assert_eq!(patch["metadata"]["resourceVersion"], "7");
        assert_eq!(
            differing_taints(&node, &there),
            ["example.com/gpu=yes:NoSchedule"]
        );
        // Added.
        node.taints.push(added);
        let there = found(
            json!({"knode/taints": "a:NoExecute"}),
            json!({}),
            json!([theirs]),
        );
        let patch = taint_changes(&node, &there).unwrap();
        assert_eq!(patch["spec"]["taints"], json!([theirs, gpu]));
    }
}
