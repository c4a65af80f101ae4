#!/bin/sh
# Lay out what is service $1's own below /out: wheels of the members it is made of, entry points, sandbox.
set -eu
out=/out/opt/venv
python3 member.py "$1" /wheels > wheels.txt
/opt/uv/bin/uv pip install --quiet --link-mode copy --no-deps --no-index --python /opt/venv/bin/python --prefix "$out" -r wheels.txt
rm -f "$out/.lock"
python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash -s /out -p / "$out/lib"
mkdir -p "$out/bin"
for program in service health; do
  cp "$program.py" "$out/bin/$program"
  chmod 0755 "$out/bin/$program"
done
case "$1" in
  agent | runner | tools) cp -a /sandbox/. /out/ ;;
esac
