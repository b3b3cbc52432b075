"""An index over HTTP: a page to search with, and a service to build on. Needs the extra ``serve``."""

from coocnet.serve.app import make_app
from coocnet.serve.server import serve
from coocnet.serve.settings import Settings, is_loopback

__all__ = ["Settings", "is_loopback", "make_app", "serve"]
