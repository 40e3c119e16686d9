# The server in a container: docker build -t syncapp . (docs/deployment.md)
FROM node:20-slim AS pages
WORKDIR /app
COPY package.json package-lock.json ./
RUN npm ci --omit=dev --silent --no-audit --no-fund

FROM python:3.11-slim AS server
WORKDIR /app
COPY requirements.txt ./
RUN pip install --no-cache-dir --disable-pip-version-check -r requirements.txt
COPY --from=pages /app/node_modules node_modules
COPY . .
# Compiled now, since the user that it runs as can't write here.
RUN python -m compileall -q . \
    && useradd --system --uid 10001 --no-create-home syncapp \
    && install -d -o syncapp -m 700 /data /backups
ENV DATA_DIR=/data LOG_FORMAT=json
EXPOSE 3000
HEALTHCHECK --start-period=10s --interval=15s --timeout=5s \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f\"http://127.0.0.1:{os.environ.get('PORT', '3000')}/health\", timeout=4)"]
CMD ["python", "syncapp.py"]

# For a volume that belongs to root, as on some platforms (docs/deployment.md): it takes that over, and gives its rights away.
FROM server AS root-volume
CMD ["sh", "-c", "chown syncapp /data && exec setpriv --reuid=syncapp --regid=syncapp --clear-groups python syncapp.py"]

FROM server
# By its number, which a cluster can tell from root's.
USER 10001
