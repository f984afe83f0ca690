-- The health of every kind of Shoal, for Argo CD: kstatus compatible, so that Argo CD, Flux and kubectl wait say the same.
-- Goes into the ConfigMap argocd-cm as resource.customizations.health.shoal.storage_<kind>, once for each kind.
local function health(status, message)
  return { status = status, message = message or "" }
end

if obj.metadata.deletionTimestamp ~= nil then
  return health("Progressing", "It is being deleted")
end
if obj.status == nil or obj.status.observedGeneration ~= obj.metadata.generation then
  return health("Progressing", "The operator has not seen it yet")
end
local conditions = {}
for _, condition in ipairs(obj.status.conditions or {}) do
  conditions[condition.type] = condition
end
local function is(type, value)
  return conditions[type] ~= nil and conditions[type].status == value
end
if is("Reconciling", "True") then
  return health("Progressing", conditions["Reconciling"].message)
end
if is("Stalled", "True") then
  return health("Degraded", conditions["Stalled"].message)
end
if is("Ready", "True") then
  return health("Healthy", conditions["Ready"].message)
end
return health("Progressing", "It is not ready yet")
