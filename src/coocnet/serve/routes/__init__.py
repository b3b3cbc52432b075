"""What can be asked for over HTTP; see ``docs/serve.md``."""

from coocnet.serve.routes.collection import collection
from coocnet.serve.routes.pictures import pictures
from coocnet.serve.routes.search import search
from coocnet.serve.routes.state import state

ROUTERS = (search, pictures, collection, state)

__all__ = ["ROUTERS"]
