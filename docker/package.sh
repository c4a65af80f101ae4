#!/bin/sh
# Install the packages of the lock $1 into /opt/venv as an image needs them: compiled, without tests and installers.
set -eu
[ ! -s /run/secrets/index ] || . /run/secrets/index
[ ! -s /run/secrets/authorities ] || export SSL_CERT_FILE=/run/secrets/authorities
/opt/uv/bin/uv venv --quiet --python "$(command -v python3)" /opt/venv
/opt/uv/bin/uv pip sync --quiet --link-mode copy --python /opt/venv/bin/python --require-hashes "$1"
cd /opt/venv
site=lib/python3.11/site-packages
# Flower depends on uv to install what an app asks for, which our settings forbid: an image carries no installer.
rm -rf bin/uv bin/uvx "$site/uv" "$site"/_virtualenv.* bin/activate* bin/deactivate* bin/*.bat .gitignore .lock CACHEDIR.TAG
find "$site" -depth -type d \( -name tests -o -name __pycache__ \) -exec rm -rf {} +
find "$site" -type f \( -name '*.pxd' -o -name '*.pyx' -o -name '*.pyi' -o -name '*.h' -o -name '*.hpp' -o -name '*.a' \) -delete
python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash -s /opt/venv -p /opt/venv lib
