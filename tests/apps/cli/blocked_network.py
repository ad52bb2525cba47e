"""Code that makes a Python process unable to use the network."""

# An audit hook cannot be taken back, and sees every way of opening or resolving a connection.
BLOCKED = """
import sys

def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.bind", "socket.sendto"):
        raise OSError(f"the network is blocked: {event}")

sys.addaudithook(refuse)
"""
