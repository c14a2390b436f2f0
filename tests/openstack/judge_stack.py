"""Judges a template as Heat's engine does before it makes a stack of it.

Usage: judge_stack.py STACK.YAML ENVIRONMENT.YAML FOLDER [NAME=VALUE…]. The parser, the
parameters, the references, the order and the schema of every resource's properties are Heat's
own; whether a cloud has the images and networks that are named is not asked. Each machine's
user-data, as Nova would be sent it, is written to FOLDER/NAME; the order, in which it would be
made, is printed.
"""

import contextlib
import sys
from unittest import mock

from heat.common import environment_format, template_format
from heat.engine import constraints, environment, resource, resources, stack, template, translation
from heat.engine.clients.os import nova
from heat.engine.resources.openstack.nova import server


def main():
    with open(sys.argv[1]) as file:
        text = file.read()
    with open(sys.argv[2]) as file:
        given = environment_format.parse(file.read())
    resources.initialise()
    given = environment.Environment(given)
    given.params.update(word.split("=", 1) for word in sys.argv[4:])
    parsed = template.Template(template_format.parse(text), env=given)
    context = mock.Mock(tenant_id="b" * 32, user_id="ops", is_admin=False, roles=[], trust_id=None)
    # Whatever would ask a cloud: which names it knows, and which services it has.
    unasked = {
        constraints.CustomConstraint: {"validate": lambda *_, **__: None},
        translation.Translation: {"has_translation": lambda *_: False},
        resource.Resource: {"_validate_service_availability": lambda *_: None},
        server.Server: {"validate": resource.Resource.validate},
    }
    with contextlib.ExitStack() as patches:
        for kind, methods in unasked.items():
            patches.enter_context(mock.patch.multiple(kind, **methods))
        made = stack.Stack(context, "demo", parsed)
        made.parameters.validate(validate_value=True, context=context)
        made.validate()
        order = [found.name for found in made.dependencies]
        for found in made.resources.values():
            if found.type() == "OS::Nova::Server":
                user_data(found, sys.argv[3])
    shown = {name: str(value) for name, value in made.parameters.items() if name.startswith("user_data")}
    hidden = [name for name in shown if not parsed.param_schemata()[name].hidden]
    assert shown and not hidden, f"these are shown: {hidden}"
    print("\n".join(order))


def user_data(machine, folder):
    form, document = (machine.properties[name] for name in ("user_data_format", "user_data"))
    sent = nova.NovaClientPlugin.build_userdata(mock.Mock(), {}, document, user_data_format=form)
    with open(f"{folder}/{machine.properties['name']}", "wb") as file:
        file.write(sent.encode())


main()
