//! What was probably meant.

/// The one of `known` that is nearest to `typed`, if it is near enough to be
/// what was meant.
pub fn nearest<'k>(typed: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let folded = fold(typed);
    known
        .into_iter()
        .map(|candidate| (distance(&folded, &fold(candidate)), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).clamp(1, 3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// `pod_cidr`, `pod-cidr` and `podCIDR` are the same mistake.
fn fold(text: &str) -> Vec<char> {
    text.chars()
        .filter(|c| !matches!(c, '-' | '_' | ' '))
        .map(|c| c.to_ascii_lowercase())
        .collect()
}

/// Levenshtein's distance.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_misses_are_found_and_far_ones_are_not() {
        let known = ["kubernetesVersion", "nodes", "name", "podCIDR", "podCIDRs"];
        assert_eq!(
            nearest("kubernetes_version", known),
            Some("kubernetesVersion")
        );
        assert_eq!(
            nearest("kubernetsVersion", known),
            Some("kubernetesVersion")
        );
        assert_eq!(nearest("node", known), Some("nodes"));
        assert_eq!(nearest("nmae", known), None);
        assert_eq!(nearest("pod_cidr", known), Some("podCIDR"));
        assert_eq!(nearest("colour", known), None);
    }
}
