// How good the model is, from what /info says of it.

const percent = (share) => `${(100 * share).toFixed(1)} %`;

/** Sentences about model and index; what was not measured is said too. */
export function describeQuality({ model, index }) {
  const count = `${index.count.toLocaleString("en")} ${index.content}s`;
  const recall = index.recall_at_10;
  const found = recall === null
    ? "how many of the true nearest 10 its search finds was not measured"
    : `its search finds ${percent(recall)} of the true nearest 10`;
  return `${ofModel(model)} Index of ${count}; ${found}.`;
}

function ofModel({ fingerprint, metrics, quality }) {
  const pairs = quality?.num_train_pairs;
  const trained = typeof pairs === "number" ? `, trained on ${pairs.toLocaleString("en")} pairs` : "";
  const name = `Model ${fingerprint.slice(0, 8)}${trained}`;
  const valid = metrics?.valid;
  const recall = valid?.text_to_protein?.["recall@10"];
  if (typeof recall !== "number") return `${name}: how good it is was not measured.`;
  const chance = valid.chance?.["recall@10"];
  const against = typeof chance === "number" ? ` (by chance ${percent(chance)})` : "";
  const weak = quality?.is_weak ? " It is a weak model, for trials alone." : "";
  const among = valid.num_proteins ? ` of ${valid.num_proteins.toLocaleString("en")} held-out proteins` : "";
  return `${name}: for ${percent(recall)} of texts the right one${among} is among its first 10${against}.${weak}`;
}
