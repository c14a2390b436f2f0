//! Where the objects of a kind are in the API, as the API itself says.
//!
//! Source: Kubernetes documentation, "Kubernetes API Concepts", discovery.

use std::collections::BTreeMap;

use serde_json::Value;

use super::inventory::Id;
use crate::error::{Code, Error, Result};
use crate::sys::api::Api;

/// What the API said. Where a kind is stays known; a kind that was not there is
/// asked for again in the next round.
#[derive(Debug, Default)]
pub struct Discovery {
    places: BTreeMap<(String, String), Place>,
    /// Of this round: lists are large.
    lists: BTreeMap<String, Option<Value>>,
}

/// Where the objects of a kind are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The name in the path: `configmaps`.
    pub resource: String,
    /// Whether they are in namespaces.
    pub namespaced: bool,
}

impl Discovery {
    /// Where objects of this kind are; `None` where the API does not know it.
    ///
    /// # Errors
    ///
    /// As every request; see [`Api::get`].
    pub async fn place(
        &mut self,
        api: &Api,
        api_version: &str,
        kind: &str,
    ) -> Result<Option<Place>> {
        let key = (api_version.to_owned(), kind.to_owned());
        if let Some(place) = self.places.get(&key) {
            return Ok(Some(place.clone()));
        }
        if !self.lists.contains_key(api_version) {
            let list = api.get(&base(api_version)).await?;
            self.lists.insert(api_version.to_owned(), list);
        }
        let list = self.lists.get(api_version).and_then(Option::as_ref);
        let place = list.and_then(|list| find(list, kind));
        if let Some(place) = &place {
            self.places.insert(key, place.clone());
        }
        Ok(place)
    }

    /// The path of an object.
    ///
    /// # Errors
    ///
    /// [`Code::ApiRefused`]: the API has no such kind (yet); and as every
    /// request.
    pub async fn path(&mut self, api: &Api, id: &Id) -> Result<String> {
        let place = self.place(api, &id.api_version, &id.kind).await?;
        place.map(|place| path(&place, id)).ok_or_else(|| {
            Error::new(
                Code::ApiRefused,
                format!("the API has no {} in {}", id.kind, id.api_version),
            )
        })
    }

    /// The round is over.
    pub fn end_round(&mut self) {
        self.lists.clear();
    }
}

/// `v1` is the oldest group, which has a path of its own.
fn base(api_version: &str) -> String {
    if api_version.contains('/') {
        format!("/apis/{api_version}")
    } else {
        format!("/api/{api_version}")
    }
}

fn find(list: &Value, kind: &str) -> Option<Place> {
    let resources = list["resources"].as_array()?;
    resources
        .iter()
        // Those with a slash are parts of others: `pods/status`.
        .find(|r| r["kind"] == kind && r["name"].as_str().is_some_and(|n| !n.contains('/')))
        .map(|resource| Place {
            resource: resource["name"].as_str().unwrap_or_default().to_owned(),
            namespaced: resource["namespaced"] == true,
        })
}

/// The path of all objects of a kind, in all namespaces.
pub fn collection(place: &Place, api_version: &str) -> String {
    format!("{}/{}", base(api_version), place.resource)
}

fn path(place: &Place, id: &Id) -> String {
    let base = base(&id.api_version);
    let Place { resource, .. } = place;
    if place.namespaced {
        format!("{base}/namespaces/{}/{resource}/{}", id.namespace, id.name)
    } else {
        format!("{base}/{resource}/{}", id.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_follow_what_the_api_says() {
        let list = json!({"resources": [
            {"name": "deployments/status", "kind": "Deployment", "namespaced": true},
            {"name": "deployments", "kind": "Deployment", "namespaced": true},
            {"name": "widgets", "kind": "Widget", "namespaced": false},
        ]});
        let id = |kind: &str| Id {
            api_version: "apps/v1".to_owned(),
            kind: kind.to_owned(),
            namespace: "default".to_owned(),
            name: "x".to_owned(),
        };
        let of = |kind: &str| find(&list, kind).map(|place| path(&place, &id(kind)));
        assert_eq!(
            of("Deployment").unwrap(),
            "/apis/apps/v1/namespaces/default/deployments/x"
        );
        assert_eq!(of("Widget").unwrap(), "/apis/apps/v1/widgets/x");
        assert_eq!(of("Other"), None);
        let place = find(&list, "Deployment").unwrap();
        assert_eq!(collection(&place, "apps/v1"), "/apis/apps/v1/deployments");
        assert_eq!(base("v1"), "/api/v1");
    }
}
