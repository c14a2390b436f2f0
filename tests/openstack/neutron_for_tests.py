"""A real Neutron, as a user of one project and an administrator see it.

Usage: neutron_for_tests.py FOLDER PORT [EXTENSION…]. It listens on loopback; everything that it
keeps is in FOLDER. Two tokens are known here instead of Keystone. Without an extension
that is named it is as one that never had it.
"""

import os
import re
import sys

import webob.dec
import webob.exc

# In memory, where no commit waits for a disk: only this process has it open.
DATABASE = "sqlite:////tmp/neutron.sqlite"
ROLES = {"a-token": "member,reader", "an-admin-token": "admin,member,reader"}


class Tokens:
    """Stands where keystonemiddleware asks Keystone who has a token."""

    def __init__(self, application):
        self.application = application

    @webob.dec.wsgify
    def __call__(self, request):
        roles = ROLES.get(request.headers.get("X-Auth-Token"))
        if roles is None:
            return webob.exc.HTTPUnauthorized()
        project = ("a" if "admin" in roles else "b") * 32
        request.headers.update({"X-User-Id": "ops", "X-Project-Id": project, "X-Roles": roles})
        return self.application


def factory(_, **__):
    return Tokens


CONFIGURATION = """
[DEFAULT]
core_plugin = ml2
service_plugins = router
transport_url = fake://
bind_host = 127.0.0.1
bind_port = {port}
api_workers = 0
rpc_workers = 0
state_path = {folder}
api_paste_config = {folder}/api-paste.ini
notify_nova_on_port_status_changes = false
notify_nova_on_port_data_changes = false
[oslo_concurrency]
lock_path = {folder}/lock
[database]
connection = {database}
[ml2]
type_drivers = local,vxlan
tenant_network_types = local
mechanism_drivers = openvswitch
extension_drivers = port_security
"""


def main():
    folder, port, without = sys.argv[1], sys.argv[2], sys.argv[3:]
    with open("/usr/share/neutron-common/api-paste.ini") as file:
        paste = file.read()
    # keystonemiddleware gives way; the pipeline stays as it is otherwise.
    paste = re.sub(r"^(keystone = .*) authtoken (.*)$", r"\1 tokens \2", paste, flags=re.M)
    assert " tokens " in paste
    with open(f"{folder}/api-paste.ini", "w") as file:
        file.write(f"{paste}\n[filter:tokens]\npaste.filter_factory = neutron_for_tests:factory\n")
    with open(f"{folder}/neutron.conf", "w") as file:
        file.write(CONFIGURATION.format(folder=folder, port=port, database=DATABASE))
    from neutron.db.migration.models import head
    from sqlalchemy import create_engine

    head.get_metadata().create_all(create_engine(DATABASE))
    if "extraroute-atomic" in without:
        from neutron.db import l3_db, extraroute_db  # noqa: F401
        from neutron.services.l3_router import l3_router_plugin

        aliases = l3_router_plugin.L3RouterPlugin._supported_extension_aliases
        aliases.remove("extraroute-atomic")
    sys.argv = ["neutron-server", "--config-file", f"{folder}/neutron.conf"]
    from neutron.cmd.eventlet.server import main as serve

    serve()


if __name__ == "__main__":
    os.makedirs(sys.argv[1], exist_ok=True)
    main()
