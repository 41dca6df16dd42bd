import { compressed, writtenOut } from './forms.ts'

/*
 * Programs that leave markers where they run. What they leave they carry in a disguise that no search sees through, so
 * that a marker is found in the place it was meant for, not in the program that brought it there.
 */

/** A marker in all its forms, as a program can carry it. */
function forms(marker: string) {
  return { text: writtenOut(marker), gzip: compressed(marker).toString('base64') }
}

function disguise(plan: object): string {
  const bytes = Buffer.from(JSON.stringify(plan))
  return Buffer.from(bytes.map((byte) => byte ^ 90)).toString('hex')
}

function program(plan: object, body: string): string {
  return `#!/usr/bin/env python3
import base64, json, os, subprocess, sys, time

plan = json.loads(bytes(byte ^ 90 for byte in bytes.fromhex("${disguise(plan)}")))

def text(place):
    return plan[place]["text"]

def forms(place):
    return text(place).encode() + base64.b64decode(plan[place]["gzip"])

${body}`
}

/** A setup that leaves a marker in the image. */
export function imageSetup(marker: string): string {
  const body = `os.makedirs("/opt/paws-audit")
open("/opt/paws-audit/marker", "wb").write(forms("image"))
`
  return program({ image: forms(marker) }, body)
}

/** A setup that fails and says the marker last: the services log why a build failed. */
export function failingSetup(marker: string): string {
  return program({ log: forms(marker) }, 'print(text("log"), flush=True)\nsys.exit(1)\n')
}

export interface SessionPlan {
  markers: { files: string; proc: string; blobs: string; database: string }
  /** Shell commands that use the secrets; what they say is kept inside */
  requests: string[]
}

/** Said on stderr when everything is in place. */
export const readyLine = 'paws audit: ready'
/** The script waits for this file, then ends. */
export const endFile = '/run/paws-audit-end'

/** Leaves markers in files, in a process and in the output, uses the secrets, and waits to be told to end. */
export function sessionScript({ markers, requests }: SessionPlan): string {
  const carried = Object.fromEntries(Object.entries(markers).map(([place, marker]) => [place, forms(marker)]))
  const body = `open("/root/marker", "wb").write(forms("files"))
subprocess.Popen(["python3", "-c", "import time; time.sleep(3600)", text("proc")])

# The beginning of a long output is moved to the blobs, its end stays in the database.
output = sys.stdout.buffer
output.write(forms("blobs"))
for _ in range(48):
    output.write(b"-" * 65535 + b"\\n")
output.write(forms("database"))
output.flush()

answers = open("/root/answers", "ab")
for request in plan["requests"]:
    try:
        subprocess.run(["bash", "-c", request], stdout=answers, stderr=answers, timeout=60)
    except subprocess.TimeoutExpired:
        pass

print("${readyLine}", file=sys.stderr, flush=True)
while not os.path.exists("${endFile}"):
    time.sleep(0.1)
`
  return program({ ...carried, requests }, body)
}
