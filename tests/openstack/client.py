"""The openstack client, loaded once: a script calls it many times, and loading it takes
seconds each time.

Usage: client.py serve SOCKET, or client.py ask SOCKET WORD…; whoever asks lends its
standard streams and its environment, and ends as the client does.
"""

import json
import os
import signal
import socket
import sys


def serve(path):
    import importlib
    import pkgutil

    import octaviaclient.osc.v2
    import openstackclient.shell

    for package in ("openstackclient.network.v2", "openstackclient.compute.v2", "openstackclient.image.v2",
                    "octaviaclient.osc.v2", "novaclient.v2", "openstack.network.v2"):
        module = importlib.import_module(package)
        for found in pkgutil.iter_modules(module.__path__):
            importlib.import_module(f"{package}.{found.name}")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path + ".new")
    listener.listen(16)
    os.rename(path + ".new", path)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            run(connection, openstackclient.shell.main)
        connection.close()


def run(connection, main):
    status = 1
    data, fds, _, _ = socket.recv_fds(connection, 1 << 20, 3)
    asked = json.loads(data)
    for target, fd in enumerate(fds):
        os.dup2(fd, target)
    os.environ.clear()
    os.environ.update(asked["environment"])
    try:
        status = main(asked["words"])
    except SystemExit as end:
        status = end.code
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        connection.sendall(json.dumps(int(status or 0)).encode())
        os._exit(0)


def ask(path, words):
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    asked = json.dumps({"words": words, "environment": dict(os.environ)}).encode()
    socket.send_fds(connection, [asked], [0, 1, 2])
    sys.exit(json.loads(connection.recv(64)))


if sys.argv[1] == "serve":
    serve(sys.argv[2])
else:
    ask(sys.argv[2], sys.argv[3:])
