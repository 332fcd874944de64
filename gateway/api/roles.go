package api

import "github.com/openvstorage/ovgate/gateway/auth"

// rule says who may call an operation.
type rule struct {
	public bool // without credentials
	quiet  bool // a part of something that is logged where it begins and ends
	role   auth.Role
}

// rules has every operation of openapi.yaml (H1). Operations on users and tokens
// narrow it further for callers without role manage.
var rules = map[string]rule{
	"GetSpec":       {public: true},
	"GetSetup":      {public: true},
	"CompleteSetup": {public: true},
	"GetSession":    {public: true},
	"SignIn":        {public: true},

	"SignOut":              {role: auth.RoleRead},
	"GetVersion":           {role: auth.RoleRead},
	"GetStatus":            {role: auth.RoleRead},
	"StreamEvents":         {role: auth.RoleRead},
	"ListVPools":           {role: auth.RoleRead},
	"GetVPool":             {role: auth.RoleRead},
	"ListVDisks":           {role: auth.RoleRead},
	"GetVDisk":             {role: auth.RoleRead},
	"GetVDiskStats":        {role: auth.RoleRead},
	"ListTrash":            {role: auth.RoleRead},
	"GetVDiskHistory":      {role: auth.RoleRead},
	"GetVDiskScrub":        {role: auth.RoleRead},
	"GetVPoolSweep":        {role: auth.RoleRead},
	"ListSnapshots":        {role: auth.RoleRead},
	"GetVDiskVerification": {role: auth.RoleRead},
	"ListTargets":          {role: auth.RoleRead},
	"GetTarget":            {role: auth.RoleRead},
	"ListISCSISessions":    {role: auth.RoleRead},
	"GetISCSISession":      {role: auth.RoleRead},
	"ListPortals":          {role: auth.RoleRead},
	"GetAlba":              {role: auth.RoleRead},
	"ListOSDs":             {role: auth.RoleRead},
	"ListDisks":            {role: auth.RoleRead},
	"GetOSD":               {role: auth.RoleRead},
	"ListPresets":          {role: auth.RoleRead},
	"GetPreset":            {role: auth.RoleRead},
	"ListNamespaces":       {role: auth.RoleRead},
	"ListJobs":             {role: auth.RoleRead},
	"ListBackends":         {role: auth.RoleRead},
	"GetBackend":           {role: auth.RoleRead},
	"ListUsers":            {role: auth.RoleRead},
	"GetUser":              {role: auth.RoleRead},
	"UpdateUser":           {role: auth.RoleRead}, // one's own password
	"ListTokens":           {role: auth.RoleRead}, // one's own
	"CreateToken":          {role: auth.RoleRead}, // one's own
	"DeleteToken":          {role: auth.RoleRead}, // one's own

	"CreateVDisk":             {role: auth.RoleWrite},
	"UpdateVDisk":             {role: auth.RoleWrite},
	"DeleteVDisk":             {role: auth.RoleWrite},
	"PublishVDisk":            {role: auth.RoleWrite},
	"UnpublishVDisk":          {role: auth.RoleWrite},
	"CommitVDisk":             {role: auth.RoleWrite},
	"AcceptVDiskLoss":         {role: auth.RoleWrite},
	"SetVDiskQos":             {role: auth.RoleWrite},
	"SetVDiskCache":           {role: auth.RoleWrite},
	"RollbackVDisk":           {role: auth.RoleWrite},
	"CloneVDisk":              {role: auth.RoleWrite},
	"FreezeVDisk":             {role: auth.RoleWrite},
	"ThawVDisk":               {role: auth.RoleWrite},
	"FlattenVDisk":            {role: auth.RoleWrite},
	"CancelFlattenVDisk":      {role: auth.RoleWrite},
	"MoveVDisk":               {role: auth.RoleWrite},
	"CancelMoveVDisk":         {role: auth.RoleWrite},
	"ScrubVDisk":              {role: auth.RoleWrite},
	"VerifyVDisk":             {role: auth.RoleWrite},
	"CancelVDiskVerification": {role: auth.RoleWrite},
	"BeginImport":             {role: auth.RoleWrite},
	"WriteImport":             {role: auth.RoleWrite, quiet: true},
	"FinishImport":            {role: auth.RoleWrite},
	"AbortImport":             {role: auth.RoleWrite},
	// Exports give the content away, and make a clone.
	"BeginExport":           {role: auth.RoleWrite},
	"GetExtents":            {role: auth.RoleWrite},
	"ReadExport":            {role: auth.RoleWrite, quiet: true},
	"GetImport":             {role: auth.RoleWrite, quiet: true},
	"GetExport":             {role: auth.RoleWrite, quiet: true},
	"EndExport":             {role: auth.RoleWrite},
	"CreateSnapshot":        {role: auth.RoleWrite},
	"CreateSnapshotGroup":   {role: auth.RoleWrite},
	"RestoreTrash":          {role: auth.RoleWrite},
	"PurgeTrash":            {role: auth.RoleWrite},
	"DeleteSnapshot":        {role: auth.RoleWrite},
	"CreateTarget":          {role: auth.RoleWrite},
	"DeleteTarget":          {role: auth.RoleWrite},
	"SetTargetPortals":      {role: auth.RoleWrite},
	"CreateTargetGroup":     {role: auth.RoleWrite},
	"UpdateTargetGroup":     {role: auth.RoleWrite},
	"DeleteTargetGroup":     {role: auth.RoleWrite},
	"AddTargetInitiator":    {role: auth.RoleWrite},
	"RemoveTargetInitiator": {role: auth.RoleWrite},
	"DropISCSISession":      {role: auth.RoleWrite},

	"SurveyAlba":      {role: auth.RoleManage},
	"RecoverAlba":     {role: auth.RoleManage},
	"RotateAlbaKey":   {role: auth.RoleManage},
	"ClaimOSD":        {role: auth.RoleManage},
	"MoveOSD":         {role: auth.RoleManage},
	"DecommissionOSD": {role: auth.RoleManage},
	"PurgeOSD":        {role: auth.RoleManage},
	"VerifyOSD":       {role: auth.RoleManage},
	"LocateOSD":       {role: auth.RoleManage},
	"ReplaceOSD":      {role: auth.RoleManage},
	"CreatePreset":    {role: auth.RoleManage},
	"UpdatePreset":    {role: auth.RoleManage},
	"DeletePreset":    {role: auth.RoleManage},
	"ClearJobs":       {role: auth.RoleManage},
	"CreateBackend":   {role: auth.RoleManage},
	"UpdateBackend":   {role: auth.RoleManage},
	"DeleteBackend":   {role: auth.RoleManage},
	"TestBackend":     {role: auth.RoleManage},
	"GetVPoolKey":     {role: auth.RoleManage},
	"CreateVPool":     {role: auth.RoleManage},
	"RecoverVPool":    {role: auth.RoleManage},
	"UpdateVPool":     {role: auth.RoleManage},
	"DeleteVPool":     {role: auth.RoleManage},
	"SweepVPool":      {role: auth.RoleManage},
	"CreateUser":      {role: auth.RoleManage},
	"DeleteUser":      {role: auth.RoleManage},
}

// creates are the operations that honour Idempotency-Key (H4).
var creates = map[string]bool{
	"ClaimOSD": true, "CreatePreset": true, "CreateBackend": true,
	"CreateVPool": true, "RecoverVPool": true, "CreateVDisk": true, "CloneVDisk": true, "BeginImport": true, "BeginExport": true, "CreateSnapshot": true, "CreateSnapshotGroup": true, "CreateTarget": true, "CreateTargetGroup": true, "CreateUser": true, "CreateToken": true,
}
