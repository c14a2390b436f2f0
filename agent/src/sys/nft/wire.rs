//! The conversation with the kernel: one batch to replace the table, three questions to read it.

use std::io;

use netlink_packet_core::{Emitable as _, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REQUEST};
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, Hook as HookAttribute, HookNumber, NfTablesMessage,
    RuleAttribute, RuleMessage, TableAttribute, TableFlags, TableMessage,
};
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use nix::errno::Errno;

use super::rules::NewChain;
use super::socket::{Conversation, Message, Reply};
use super::{Chain, Error, FOREIGN_RULE, Hook, Result, TABLE, Table};

/// The batch's header names the subsystem that it is for: `NFNL_SUBSYS_NFTABLES`.
const SUBSYSTEM: u16 = 10;
/// `NLM_F_APPEND`: a new rule goes to the end of its chain.
const APPEND: u16 = 0x800;
/// Type of the comment in an object's user data, the same for tables and rules (libnftnl's udata.h).
const UDATA_COMMENT: u8 = 0;
/// How often a listing is begun anew because somebody changed tables meanwhile.
const LISTING_TRIES: usize = 10;

fn message(inner: impl Into<NetfilterMessageInner>, flags: u16) -> Message {
    let inner = inner.into();
    let (family, subsystem) = match &inner {
        NetfilterMessageInner::None(_) => (NetfilterProtoFamily::Unspec, SUBSYSTEM),
        _ => (NetfilterProtoFamily::Inet, 0),
    };
    let mut message = Message::from(NetfilterMessage::new(
        NetfilterHeader::new(family, 0, subsystem),
        inner,
    ));
    message.header.flags = NLM_F_REQUEST | flags;
    message
}

fn table() -> TableMessage {
    TableMessage {
        attributes: vec![TableAttribute::Name(TABLE.to_owned())],
    }
}

/// A comment as `nft` writes and shows it: type, length, text with a final NUL.
fn comment(text: &str) -> Vec<u8> {
    let mut bytes = vec![
        UDATA_COMMENT,
        u8::try_from(text.len() + 1).unwrap_or(u8::MAX),
    ];
    bytes.extend(text.as_bytes().iter().take(usize::from(u8::MAX) - 1));
    bytes.push(0);
    bytes
}

/// The comment in an object's user data.
fn read_comment(mut udata: &[u8]) -> Option<String> {
    while let [kind, len, rest @ ..] = udata {
        let (value, rest) = rest.split_at_checked(usize::from(*len))?;
        if *kind == UDATA_COMMENT {
            let text = value.strip_suffix(&[0]).unwrap_or(value);
            return String::from_utf8(text.to_vec()).ok();
        }
        udata = rest;
    }
    None
}

/// Begin, the changes, end. The kernel does all of it or nothing; the last change asks for the
/// acknowledgement, for the end itself is not acknowledged by older kernels.
fn batch(changes: Vec<Message>) -> (Vec<u8>, u32) {
    let mut messages = vec![message(ControlMessage::BatchBegin, 0)];
    messages.extend(changes);
    if let Some(last) = messages.last_mut() {
        last.header.flags |= NLM_F_ACK;
    }
    let acknowledged = u32::try_from(messages.len()).unwrap_or(u32::MAX);
    messages.push(message(ControlMessage::BatchEnd, 0));
    let mut bytes = Vec::new();
    for (number, message) in (1..).zip(&mut messages) {
        message.header.sequence_number = number;
        append(&mut bytes, message);
    }
    (bytes, acknowledged)
}

fn append(bytes: &mut Vec<u8>, message: &mut Message) {
    message.finalize();
    let start = bytes.len();
    // Messages begin at multiples of four.
    bytes.resize(start + message.buffer_len().next_multiple_of(4), 0);
    message.emit(&mut bytes[start..start + message.buffer_len()]);
}

/// Makes the table if it is missing, so that it can be removed with all its content, and makes it
/// anew: within one transaction, packets see the old or the new one.
pub(super) async fn replace(chains: &[NewChain]) -> Result<()> {
    let mut fresh = table();
    fresh
        .attributes
        .push(TableAttribute::UserData(comment("managed by knode")));
    let mut changes = vec![
        message(NfTablesMessage::NewTable(table()), NLM_F_CREATE),
        message(NfTablesMessage::DeleteTable(table()), 0),
        message(NfTablesMessage::NewTable(fresh), NLM_F_CREATE),
    ];
    for chain in chains {
        let attributes = vec![
            ChainAttribute::Table(TABLE.to_owned()),
            ChainAttribute::Name(chain.name.to_owned()),
            ChainAttribute::Hook(vec![
                HookAttribute::Number(HookNumber::Other(chain.hook.number)),
                HookAttribute::Priority(chain.hook.priority.cast_unsigned()),
            ]),
            ChainAttribute::Policy(chain.hook.policy),
            ChainAttribute::Type(chain.hook.kind.clone()),
        ];
        changes.push(message(
            NfTablesMessage::NewChain(ChainMessage { attributes }),
            NLM_F_CREATE,
        ));
    }
    for chain in chains {
        for rule in &chain.rules {
            let attributes = vec![
                RuleAttribute::Table(TABLE.to_owned()),
                RuleAttribute::Chain(chain.name.to_owned()),
                RuleAttribute::Expressions(rule.expressions.clone()),
                RuleAttribute::UserData(comment(&rule.comment)),
            ];
            changes.push(message(
                NfTablesMessage::NewRule(RuleMessage { attributes }),
                NLM_F_CREATE | APPEND,
            ));
        }
    }
    transact("replacing the nftables table knode", changes).await
}

/// Removes the table; one that is gone already is no error.
pub(super) async fn remove() -> Result<()> {
    let changes = vec![
        message(NfTablesMessage::NewTable(table()), NLM_F_CREATE),
        message(NfTablesMessage::DeleteTable(table()), 0),
    ];
    transact("removing the nftables table knode", changes).await
}

async fn transact(action: &'static str, changes: Vec<Message>) -> Result<()> {
    let (bytes, acknowledged) = batch(changes);
    Conversation::begin(action, &bytes)
        .await?
        .until(|reply| match reply {
            Reply::Acknowledged(number) => number == acknowledged,
            _ => false,
        })
        .await
}

pub(super) async fn observe() -> Result<Option<Table>> {
    let action = "reading the nftables table knode";
    for _ in 0..LISTING_TRIES {
        match try_observe(action).await {
            Err(Error::Kernel { source, .. }) if source.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
    Err(Error::Kernel {
        action,
        source: io::ErrorKind::Interrupted.into(),
    })
}

async fn try_observe(action: &'static str) -> Result<Option<Table>> {
    let mut found = None;
    let question = message(NfTablesMessage::GetTable(table()), NLM_F_ACK);
    let result = ask(action, question, |answer| {
        if let Answer::Table(flags) = answer {
            found = Some(Table {
                flags,
                ..Table::default()
            });
        }
    })
    .await;
    match result {
        Err(e) if e.errno() == Some(Errno::ENOENT) => return Ok(None),
        other => other?,
    }
    let Some(mut table) = found else {
        return Ok(None);
    };

    // Chains are listed of all tables of the family; only rules can be asked for by table.
    let question = message(
        NfTablesMessage::GetChain(ChainMessage { attributes: vec![] }),
        NLM_F_DUMP,
    );
    ask(action, question, |answer| {
        if let Answer::Chain(name, chain) = answer {
            table.chains.insert(name, chain);
        }
    })
    .await?;
    let attributes = vec![RuleAttribute::Table(TABLE.to_owned())];
    let question = message(
        NfTablesMessage::GetRule(RuleMessage { attributes }),
        NLM_F_DUMP,
    );
    ask(action, question, |answer| {
        if let Answer::Rule(chain, comment) = answer {
            table.chains.entry(chain).or_default().rules.push(comment);
        }
    })
    .await?;
    Ok(Some(table))
}

/// What concerns our table in an answer of the kernel.
enum Answer {
    Table(u32),
    Chain(String, Chain),
    Rule(String, String),
}

async fn ask(
    action: &'static str,
    mut question: Message,
    mut take: impl FnMut(Answer),
) -> Result<()> {
    question.header.sequence_number = 1;
    let mut bytes = Vec::new();
    append(&mut bytes, &mut question);
    Conversation::begin(action, &bytes)
        .await?
        .until(|reply| match reply {
            Reply::Acknowledged(_) | Reply::Done => true,
            Reply::Message(message) => {
                if let Some(answer) = answer(message) {
                    take(answer);
                }
                false
            }
        })
        .await
}

fn answer(message: NfTablesMessage) -> Option<Answer> {
    match message {
        NfTablesMessage::NewTable(table) => {
            let flags = table
                .attributes
                .into_iter()
                .find_map(|attribute| match attribute {
                    TableAttribute::Flags(flags) => Some(flags),
                    _ => None,
                });
            Some(Answer::Table(flags.unwrap_or(TableFlags::empty()).bits()))
        }
        NfTablesMessage::NewChain(chain) => chain_answer(chain.attributes),
        NfTablesMessage::NewRule(rule) => {
            let (mut chain, mut comment, mut ours) = (None, None, false);
            for attribute in rule.attributes {
                match attribute {
                    RuleAttribute::Table(name) => ours = name == TABLE,
                    RuleAttribute::Chain(name) => chain = Some(name),
                    RuleAttribute::UserData(udata) => comment = read_comment(&udata),
                    _ => {}
                }
            }
            let comment = comment.unwrap_or_else(|| FOREIGN_RULE.to_owned());
            chain
                .filter(|_| ours)
                .map(|chain| Answer::Rule(chain, comment))
        }
        _ => None,
    }
}

fn chain_answer(attributes: Vec<ChainAttribute>) -> Option<Answer> {
    let (mut ours, mut name, mut kind, mut policy) = (false, None, String::new(), 0);
    let (mut number, mut priority) = (None, 0);
    for attribute in attributes {
        match attribute {
            ChainAttribute::Table(table) => ours = table == TABLE,
            ChainAttribute::Name(text) => name = Some(text),
            ChainAttribute::Type(text) => kind = text,
            ChainAttribute::Policy(value) => policy = value,
            ChainAttribute::Hook(hook) => {
                for attribute in hook {
                    match attribute {
                        HookAttribute::Number(value) => number = Some(u32::from(value)),
                        HookAttribute::Priority(value) => priority = value.cast_signed(),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    let hook = number.map(|number| Hook {
        kind,
        number,
        priority,
        policy,
    });
    name.filter(|_| ours).map(|name| {
        Answer::Chain(
            name,
            Chain {
                hook,
                rules: vec![],
            },
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_are_written_and_read_in_nfts_own_format() {
        // What nft itself stores for `comment "x"`.
        assert_eq!(comment("x"), [0, 2, b'x', 0]);
        assert_eq!(
            read_comment(&comment("masquerade 10.0.0.0/8 #00ff")).as_deref(),
            Some("masquerade 10.0.0.0/8 #00ff")
        );
        // Other data before the comment (ebtables policy: type 1).
        assert_eq!(
            read_comment(&[1, 1, 9, 0, 2, b'x', 0]).as_deref(),
            Some("x")
        );
        for bad in [&[][..], &[0], &[0, 9, b'x'], &[0, 1, 0xff], &[1, 0]] {
            assert_eq!(read_comment(bad), None, "{bad:?}");
        }
    }
}
