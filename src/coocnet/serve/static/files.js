/** Uploaded files are kept in this browser (the newest 20), so that the server need not keep them for ever. */

const KEPT = 20;

function open() {
  return new Promise((resolve, reject) => {
    const opening = indexedDB.open("coocnet", 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore("uploads", { keyPath: "id" });
    opening.onsuccess = () => resolve(opening.result);
    opening.onerror = () => reject(opening.error);
  });
}

function done(work) {
  return new Promise((resolve, reject) => {
    work.onsuccess = () => resolve(work.result);
    work.onerror = () => reject(work.error);
  });
}

/**
 * @typedef {{id: string, width: number, height: number, picture: boolean, name: string, file: Blob, at: number}} Kept
 * @param {Kept} upload
 */
export async function keepFile(upload) {
  try {
    const base = await open();
    const store = base.transaction("uploads", "readwrite").objectStore("uploads");
    await done(store.put(upload));
    const all = (await done(store.getAll())).sort((a, b) => b.at - a.at);
    for (const old of all.slice(KEPT)) store.delete(old.id);
  } catch {
    // In a private window, or with a full disk, an upload simply lives as long as the server keeps it.
  }
}

/** @returns {Promise<Kept|undefined>} */
export async function keptFile(id) {
  try {
    const base = await open();
    return await done(base.transaction("uploads").objectStore("uploads").get(id));
  } catch {
    return undefined;
  }
}
