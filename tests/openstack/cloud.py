"""What of a cloud is not Neutron, as far as the openstack client and kgen ask for it:
Keystone, Glance, Nova and Octavia, with books in memory.

Usage: cloud.py PORT NEUTRON-URL BOOKS. Each change is written to BOOKS, as JSON.
"""

import json
import os
import sys
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit
from urllib.request import Request, urlopen

PORT, NEUTRON, FILE = int(sys.argv[1]), sys.argv[2], sys.argv[3]
HERE = f"http://127.0.0.1:{PORT}"
TOKEN, PROJECT = "a-token", "b" * 32
CATALOG = {
    "network": NEUTRON,
    "image": f"{HERE}/image",
    "compute": f"{HERE}/compute/v2.1",
    "load-balancer": f"{HERE}/load-balancer",
    "identity": f"{HERE}/identity",
}
lock = threading.RLock()
books = {"servers": {}, "server_groups": {}, "tokens": [], "lbaas": {}}
IMAGES = ["debian-13"]
FLAVORS = ["m1.small", "m1.medium", "m1.large"]


def ask_neutron(method, path, body):
    data = json.dumps(body).encode() if body is not None else None
    headers = {"X-Auth-Token": TOKEN, "Content-Type": "application/json"}
    with urlopen(Request(NEUTRON + path, data, headers, method=method)) as answer:
        text = answer.read()
        return json.loads(text) if text else None


def token(asked):
    identity = asked["auth"]["identity"]
    method = identity["methods"][0]
    known = {
        "password": lambda i: i["user"] == {"name": "ops", "domain": {"id": "default"}, "password": "hunter2"},
        "application_credential": lambda i: i == {"id": "c" * 32, "secret": "hunter3"},
        "token": lambda i: i == {"id": "an-older-token"},
    }
    with lock:
        books["tokens"].append({"method": method, "scope": asked["auth"].get("scope")})
    if method not in known or not known[method](identity[method]):
        return None
    catalog = [
        {"type": kind, "name": kind, "id": kind, "endpoints": [
            {"id": f"{kind}-{interface}", "interface": interface, "region": "here", "region_id": "here", "url": url}
            for interface in ("public", "internal")]}
        for kind, url in CATALOG.items()
    ]
    return {"token": {
        "methods": [method], "expires_at": "2099-01-01T00:00:00.000000Z", "issued_at": "2026-01-01T00:00:00.000000Z",
        "user": {"id": "ops", "name": "ops", "domain": {"id": "default", "name": "Default"}},
        "project": {"id": PROJECT, "name": "demo", "domain": {"id": "default", "name": "Default"}},
        "roles": [{"id": "member", "name": "member"}], "catalog": catalog, "is_domain": False,
    }}


def server_of(body, hints):
    made = dict(body, id=str(uuid.uuid4()), status="ACTIVE", hints=hints, tenant_id=PROJECT, user_id="ops",
                image={"id": body.get("imageRef")} if body.get("imageRef") else "",
                flavor={"original_name": body["flavorRef"], "id": body["flavorRef"]},
                addresses={}, created="2026-01-01T00:00:00Z", updated="2026-01-01T00:00:00Z")
    made.setdefault("metadata", {})
    for network in body["networks"]:
        # As Nova does: the port is the machine's.
        device = {"device_id": made["id"], "device_owner": "compute:nova"}
        ask_neutron("PUT", f"/v2.0/ports/{network['port']}", {"port": device})
    return made


class Cloud(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def reply(self, status, body=None, **headers):
        # Whoever has the answer reads books in which it stands.
        with lock:
            with open(f"{FILE}.new", "w") as file:
                json.dump(books, file)
            os.replace(f"{FILE}.new", FILE)
        data = json.dumps(body).encode() if body is not None else b""
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def handle_one(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        url = urlsplit(self.path)
        query = {k: v[0] for k, v in parse_qs(url.query).items()}
        service, _, path = url.path.strip("/").partition("/")
        method = self.command
        if service == "identity":
            return self.identity(method, path, body)
        if self.headers.get("X-Auth-Token") != TOKEN:
            return self.reply(401, {"error": {"message": "no token", "code": 401}})
        with lock:
            return getattr(self, service.replace("-", "_"))(method, path, query, body)

    def identity(self, method, path, body):
        if (method, path) == ("POST", "v3/auth/tokens"):
            made = token(body)
            if made is None:
                return self.reply(401, {"error": {"message": "The request you have made requires authentication.", "code": 401}})
            return self.reply(201, made, X_Subject_Token=TOKEN)
        version = {"id": "v3.14", "status": "stable", "links": [{"rel": "self", "href": f"{HERE}/identity/v3/"}]}
        if path == "v3":
            return self.reply(200, {"version": version})
        return self.reply(300, {"versions": {"values": [version]}})

    def image(self, method, path, query, body):
        if path in ("", "v2"):
            version = {"id": "v2.9", "status": "CURRENT", "links": [{"rel": "self", "href": f"{HERE}/image/v2/"}]}
            return self.reply(300, {"versions": [version]})
        images = [{"id": f"image-{name}", "name": name, "status": "active", "visibility": "public"} for name in IMAGES]
        if path == "v2/images":
            name = query.get("name")
            return self.reply(200, {"images": [i for i in images if name in (None, i["name"])]})
        for image in images:
            if path == f"v2/images/{image['id']}":
                return self.reply(200, image)
        return self.reply(404, {"message": "no such image"})

    def compute(self, method, path, query, body):
        path = path.removeprefix("v2.1").strip("/")
        if not path:
            return self.reply(200, {"version": {"id": "v2.1", "status": "CURRENT", "version": "2.90", "min_version": "2.1",
                                                "links": [{"rel": "self", "href": f"{HERE}/compute/v2.1/"}]}})
        kind, _, rest = path.partition("/")
        if kind == "flavors":
            flavors = [{"id": name, "name": name, "vcpus": 2, "ram": 4096, "disk": 20, "links": []} for name in FLAVORS]
            if rest in ("", "detail"):
                return self.reply(200, {"flavors": flavors})
            found = [f for f in flavors if f["id"] == rest]
            return self.reply(200, {"flavor": found[0]}) if found else self.reply(404, {"itemNotFound": {"message": "no flavor"}})
        if kind == "os-keypairs":
            return self.reply(200, {"keypair": {"name": rest}})
        if kind == "os-server-groups":
            groups = books["server_groups"]
            if method == "POST":
                group = dict(body["server_group"], id=str(uuid.uuid4()), members=[], metadata={})
                groups[group["id"]] = group
                return self.reply(200, {"server_group": group})
            if method == "DELETE":
                del groups[rest]
                return self.reply(204)
            if rest:
                return self.reply(200, {"server_group": groups[rest]})
            return self.reply(200, {"server_groups": list(groups.values())})
        servers = books["servers"]
        if method == "POST" and kind == "servers":
            made = server_of(body["server"], body.get("os:scheduler_hints"))
            servers[made["id"]] = made
            return self.reply(202, {"server": made})
        if rest in ("", "detail"):
            name = query.get("name")
            marker = query.get("marker")
            return self.reply(200, {"servers": [] if marker else [s for s in servers.values() if name in (None, s["name"])]})
        if rest not in servers:
            return self.reply(404, {"itemNotFound": {"message": "no such server", "code": 404}})
        if method == "DELETE":
            for port in servers.pop(rest)["networks"]:
                ask_neutron("PUT", f"/v2.0/ports/{port['port']}", {"port": {"device_id": "", "device_owner": ""}})
            return self.reply(204)
        return self.reply(200, {"server": servers[rest]})

    def load_balancer(self, method, path, query, body):
        if path in ("", "v2", "v2.0"):
            version = {"id": "v2.26", "status": "CURRENT", "links": [{"rel": "self", "href": f"{HERE}/load-balancer/v2"}]}
            return self.reply(200, {"versions": [version]})
        parts = path.split("/")[2:]
        # The last words are KIND, or KIND/ID.
        kinds = {"loadbalancers": "loadbalancer", "listeners": "listener", "pools": "pool",
                 "healthmonitors": "healthmonitor", "members": "member"}
        kind, ident = (parts[-1], None) if parts[-1] in kinds else (parts[-2], parts[-1])
        shelf, one = books["lbaas"].setdefault(kind, {}), kinds[kind]
        if method == "POST":
            made = dict(body[one], id=str(uuid.uuid4()), provisioning_status="ACTIVE", operating_status="ONLINE", project_id=PROJECT)
            if one == "loadbalancer":
                port = {"network_id": ask_neutron("GET", f"/v2.0/subnets/{made['vip_subnet_id']}", None)["subnet"]["network_id"],
                        "fixed_ips": [{"subnet_id": made["vip_subnet_id"], "ip_address": made["vip_address"]}],
                        "device_owner": "Octavia"}
                made["vip_port_id"] = ask_neutron("POST", "/v2.0/ports", {"port": port})["port"]["id"]
            if one == "listener":
                made["loadbalancers"] = [{"id": made["loadbalancer_id"]}]
            if one == "pool":
                made["listeners"] = [{"id": made["listener_id"]}]
                made["loadbalancers"] = books["lbaas"]["listeners"][made["listener_id"]]["loadbalancers"]
            if one == "healthmonitor":
                made["pools"] = [{"id": made["pool_id"]}]
            shelf[made["id"]] = made
            return self.reply(201, {one: made})
        if ident is None:
            name = query.get("name")
            return self.reply(200, {kind: [x for x in shelf.values() if name in (None, x["name"])]})
        if ident not in shelf:
            return self.reply(404, {"faultstring": "not found", "faultcode": "Client"})
        if method == "PUT":
            shelf[ident].update(body[one])
        if method == "DELETE":
            gone = shelf.pop(ident)
            if one == "loadbalancer":
                ask_neutron("DELETE", f"/v2.0/ports/{gone['vip_port_id']}", None)
                books["lbaas"].clear()
            return self.reply(204)
        return self.reply(200, {one: shelf[ident]})

    do_GET = do_POST = do_PUT = do_DELETE = handle_one


ThreadingHTTPServer(("127.0.0.1", PORT), Cloud).serve_forever()
