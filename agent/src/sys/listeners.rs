//! Who listens at a TCP port of this machine, asked of the kernel (sock_diag(7)):
//! it walks the listening sockets alone, and not every connection, as reading
//! /proc/net/tcp does.

use std::io;

use netlink_sys::{Socket, SocketAddr};

/// NETLINK_SOCK_DIAG.
const FAMILY: isize = 4;
/// SOCK_DIAG_BY_FAMILY.
const BY_FAMILY: u16 = 20;
/// NLM_F_REQUEST and NLM_F_DUMP.
const DUMP: u16 = 0x301;
/// TCP_LISTEN, as a bit of the wanted states.
const LISTEN: u32 = 1 << 10;
/// AF_INET and AF_INET6.
const FAMILIES: [u8; 2] = [2, 10];
/// IPPROTO_TCP.
const TCP: u8 = 6;
/// Bytes of struct nlmsghdr.
const HEADER: usize = 16;
/// Where struct inet_diag_sockid is in struct inet_diag_msg, and ends.
const ID: std::ops::Range<usize> = 4..52;

/// The sockets that listen at a port, by what the kernel identifies them by.
///
/// # Errors
///
/// The kernel's reason.
pub fn at(port: u16) -> io::Result<Vec<Vec<u8>>> {
    let socket = Socket::new(FAMILY)?;
    let mut found = Vec::new();
    for family in FAMILIES {
        socket.send_to(&request(family, port), &SocketAddr::new(0, 0), 0)?;
        while let Some(more) = ids(&socket.recv_from_full()?.0, port)? {
            found.extend(more);
        }
    }
    Ok(found)
}

/// struct nlmsghdr and struct inet_diag_req_v2.
fn request(family: u8, port: u16) -> Vec<u8> {
    let mut request = Vec::with_capacity(72);
    request.extend(72_u32.to_ne_bytes());
    request.extend(BY_FAMILY.to_ne_bytes());
    request.extend(DUMP.to_ne_bytes());
    request.extend([0; 8]);
    request.extend([family, TCP, 0, 0]);
    request.extend(LISTEN.to_ne_bytes());
    request.extend(port.to_be_bytes());
    request.resize(72, 0);
    request
}

/// The sockets in one answer; `None` at the end of all.
fn ids(mut answer: &[u8], port: u16) -> io::Result<Option<Vec<Vec<u8>>>> {
    let short = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let mut found = Vec::new();
    while answer.len() >= HEADER {
        let length = u32::from_ne_bytes([answer[0], answer[1], answer[2], answer[3]]);
        let length = usize::try_from(length).map_err(io::Error::other)?;
        let body = answer.get(HEADER..length).ok_or_else(short)?;
        match u16::from_ne_bytes([answer[4], answer[5]]) {
            BY_FAMILY => {
                let id = body.get(ID).ok_or_else(short)?;
                if id[..2] == port.to_be_bytes() {
                    found.push(id.to_vec());
                }
            }
            // NLMSG_ERROR: without the module that knows, say.
            2 => return Err(io::ErrorKind::Unsupported.into()),
            // NLMSG_DONE.
            3 => return Ok(None),
            _ => {}
        }
        answer = answer.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(Some(found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_is_found_and_who_is_connected_is_not() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let _client = std::net::TcpStream::connect(address).unwrap();
        assert_eq!(at(address.port()).unwrap().len(), 1);
        drop(listener);
        assert!(at(address.port()).unwrap().is_empty());
        let v6 = std::net::TcpListener::bind("[::1]:0").unwrap();
        assert_eq!(at(v6.local_addr().unwrap().port()).unwrap().len(), 1);
    }
}
