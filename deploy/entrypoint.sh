#!/bin/sh
# Runs a command with secrets that are mounted as files in its environment, where coocnet looks for them.
set -eu
folder=${COOCNET_SECRETS:-/run/secrets}
for name in COOCNET_TOKEN COOCNET_MILVUS_TOKEN; do
    file=$folder/$(echo "$name" | tr '[:upper:]' '[:lower:]')
    if [ -f "$file" ]; then
        value=$(cat "$file")
        export "$name=$value"
    fi
done
exec "$@"
