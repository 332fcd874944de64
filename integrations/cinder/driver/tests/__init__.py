# Licensed under the Apache License, Version 2.0; see LICENSE.

import eventlet

# As cinder-volume does, before anything imports ssl.
eventlet.monkey_patch()
