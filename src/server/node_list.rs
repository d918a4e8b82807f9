//! The list of a cluster's nodes that a server begins with (`-o cluster_config`).

use std::fs::File;
use std::io::Read;
use std::net::IpAddr;

use crate::settings::Settings;
use crate::state::CONFIG_LEN_MAX;

/// The node list to begin with, if there is one.
pub(super) fn node_list(settings: &Settings) -> Result<Option<Vec<u8>>, String> {
    let Some(file) = &settings.cluster_config else {
        return Ok(None);
    };
    let told =
        |what: &dyn std::fmt::Display| format!("-o cluster_config: {}: {what}", file.display());
    let mut list = Vec::new();
    let opened = File::open(file).map_err(|error| told(&error))?;
    let most = CONFIG_LEN_MAX as u64 + 1;
    opened
        .take(most)
        .read_to_end(&mut list)
        .map_err(|error| told(&error))?;
    if list.len() > CONFIG_LEN_MAX {
        return Err(told(&format_args!("longer than {CONFIG_LEN_MAX} bytes")));
    }
    check_cluster(&list).map_err(|reason| told(&reason))?;
    Ok(Some(list))
}

/// Whether a node list is what clients with auto discovery read: a line with a version, and one with the nodes.
fn check_cluster(list: &[u8]) -> Result<(), String> {
    let text = str::from_utf8(list).map_err(|_| "not a text in UTF-8".to_owned())?;
    let mut lines = text.lines();
    let version = lines.next().unwrap_or_default();
    if version.trim().parse::<u64>().is_err() {
        return Err(format!(
            "line 1 must be the list's version, a number, and is {version:?}"
        ));
    }
    let nodes: Vec<_> = lines
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    if nodes.is_empty() {
        return Err("line 2 must have the nodes, HOST|IP|PORT with blanks between them".to_owned());
    }
    let is_node = |node: &&str| {
        let parts: Vec<_> = node.split('|').collect();
        // A name that was not looked up has no address.
        let [host, ip, port] = parts[..] else {
            return false;
        };
        let has_ip = ip.is_empty() || ip.parse::<IpAddr>().is_ok();
        !host.is_empty() && has_ip && port.parse::<u16>().is_ok_and(|port| port > 0)
    };
    if let Some(node) = nodes.iter().find(|node| !is_node(node)) {
        return Err(format!(
            "line 2: a node must be HOST|IP|PORT, and is {node:?}"
        ));
    }
    match lines.find(|line| !line.trim().is_empty()) {
        Some(line) => Err(format!(
            "all nodes must be in line 2, with blanks between them, and there is another line, {line:?}"
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_list_is_what_clients_read() {
        for list in [
            "12\na|10.0.0.1|11211 b.example|10.0.0.2|11212\n",
            "1\na||11211",
            "1\r\na|::1|11211\r\n\r\n",
        ] {
            assert_eq!(check_cluster(list.as_bytes()), Ok(()), "{list:?}");
        }
        for (list, told) in [
            ("", "line 1 must be"),
            ("a|10.0.0.1|11211\n", "line 1 must be"),
            ("-1\na|10.0.0.1|11211\n", "line 1 must be"),
            ("1\n", "line 2 must have the nodes"),
            ("1\n\na|10.0.0.1|11211\n", "line 2 must have the nodes"),
            ("1\na:11211\n", "is \"a:11211\""),
            ("1\na|10.0.0.1|0\n", "is \"a|10.0.0.1|0\""),
            ("1\na|b|11211\n", "is \"a|b|11211\""),
            ("1\n|10.0.0.1|11211\n", "is \"|10.0.0.1|11211\""),
            ("1\na|10.0.0.1|11211,b|10.0.0.2|11211\n", "a node must be"),
            (
                "1\na|10.0.0.1|1\nb|10.0.0.2|1\n",
                "another line, \"b|10.0.0.2|1\"",
            ),
        ] {
            let err = check_cluster(list.as_bytes()).unwrap_err();
            assert!(err.contains(told), "{list:?}: {err}");
        }
        assert!(check_cluster(b"1\na\xff|10.0.0.1|1\n").is_err());
    }
}
