//! Topics of Sparkplug: `spBv1.0/group/type/edge node[/device]`, and `spBv1.0/STATE/host`.

/// Whom a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Address<'t> {
    /// What some put before it, with the slash.
    pub(super) prefix: &'t str,
    pub(super) group: &'t str,
    /// `None` of the state of a host application.
    pub(super) message: Option<MessageType>,
    pub(super) edge_node: &'t str,
    pub(super) device: Option<&'t str>,
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MessageType {
    NodeBirth,
    NodeDeath,
    NodeData,
    NodeCommand,
    DeviceBirth,
    DeviceDeath,
    DeviceData,
    DeviceCommand,
}

const TYPES: [(&str, MessageType); 8] = [
    ("NBIRTH", MessageType::NodeBirth),
    ("NDEATH", MessageType::NodeDeath),
    ("NDATA", MessageType::NodeData),
    ("NCMD", MessageType::NodeCommand),
    ("DBIRTH", MessageType::DeviceBirth),
    ("DDEATH", MessageType::DeviceDeath),
    ("DDATA", MessageType::DeviceData),
    ("DCMD", MessageType::DeviceCommand),
];

impl MessageType {
    pub(super) fn name(self) -> &'static str {
        TYPES.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }
}

impl<'t> Address<'t> {
    pub(super) fn of(topic: &'t [u8]) -> Result<Self, String> {
        let wrong = || {
            let topic = String::from_utf8_lossy(topic);
            format!("expected a topic like spBv1.0/group/NDATA/edge_node/device, got `{topic}`")
        };
        let text = std::str::from_utf8(topic).map_err(|_| wrong())?;
        let levels: Vec<&str> = text.split('/').collect();
        // Some put it below a prefix of their own.
        let start = levels.iter().position(|level| *level == "spBv1.0").ok_or_else(wrong)?;
        let prefix = &text[..levels[..start].iter().map(|level| level.len() + 1).sum()];
        match levels[start + 1..] {
            ["STATE", host] => Ok(Self { prefix, group: "", message: None, edge_node: host, device: None }),
            [group, kind, edge_node, ref device @ ..] if device.len() < 2 => {
                let message = TYPES.iter().find(|(name, _)| *name == kind).ok_or_else(wrong)?.1;
                Ok(Self { prefix, group, message: Some(message), edge_node, device: device.first().copied() })
            }
            _ => Err(wrong()),
        }
    }

    /// What tells edge nodes apart.
    pub(super) fn node_key(&self) -> String {
        format!("{}/{}", self.group, self.edge_node)
    }

    /// What tells the metrics of an edge node apart. No level of a topic has a slash.
    pub(super) fn metric_key(&self, name: &str) -> String {
        format!("{}/{name}", self.device.unwrap_or(""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_read() {
        let read = |topic: &'static str| Address::of(topic.as_bytes());
        let data = read("spBv1.0/g/DDATA/e/d").unwrap();
        assert_eq!((data.group, data.edge_node, data.device), ("g", "e", Some("d")));
        assert_eq!(data.message.map(MessageType::name), Some("DDATA"));
        assert_eq!(read("my/spBv1.0/g/NBIRTH/e").unwrap().node_key(), "g/e");
        assert_eq!(read("spBv1.0/STATE/h").unwrap().message, None);
        for wrong in ["spBv1.0/g/NDATA", "spBv1.0/g/XDATA/e", "spBv1.0/g/NDATA/e/d/x", "a/b", "spBv1.0"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
