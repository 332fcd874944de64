package api

import (
	"context"

	"github.com/openvstorage/ovgate/gateway/control"
	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/volumedriver/backend/remote"
)

func remoteOptionsOf(r model.Remote) RemoteOptions {
	s := r.Spec
	out := RemoteOptions{
		URL: s.URL, Region: s.Region, Container: s.Container, User: s.User, Ca: s.CA, Proxy: s.Proxy, Connections: s.Connections,
		UploadBytes: s.Upload, DownloadBytes: s.Download,
	}
	if o := s.S3; o != nil {
		out.Addressing, out.Iam, out.Sse, out.SseKey = o.Addressing, o.IAM, o.SSE, o.SSEKey
		for to, def := range map[*string]string{&out.Addressing: "auto", &out.Sse: "none"} {
			if *to == "" {
				*to = def
			}
		}
	}
	if o := s.Swift; o != nil {
		out.AuthVersion, out.Domain, out.Project, out.ProjectDomain, out.Trust = o.AuthVersion, o.Domain, o.Project, o.ProjectDomain, o.Trust
		out.ApplicationCredential, out.Endpoint, out.Policy, out.Shards = o.Credential, o.Endpoint, o.Policy, max(o.Shards, 1)
		if out.Endpoint == "" {
			out.Endpoint = "public"
		}
	}
	return out
}

// remoteChange is the change of a spec that options ask for; it names a field that
// the kind does not have.
func remoteChange(kind string, in *RemoteOptionsInput) (func(*model.RemoteSpec), error) {
	if in == nil {
		return nil, nil
	}
	for field, given := range map[string]bool{
		"addressing": in.Addressing != nil, "iam": in.Iam != nil, "sse": in.Sse != nil, "sseKey": in.SseKey != nil,
	} {
		if given && kind != model.KindS3 {
			return nil, refuseField("options."+field, "leave it out", "a %s backend has no %s", kind, field)
		}
	}
	for field, given := range map[string]bool{
		"authVersion": in.AuthVersion != nil, "domain": in.Domain != nil, "project": in.Project != nil, "projectDomain": in.ProjectDomain != nil,
		"trust": in.Trust != nil, "applicationCredential": in.ApplicationCredential != nil, "endpoint": in.Endpoint != nil,
		"policy": in.Policy != nil, "shards": in.Shards != nil,
	} {
		if given && kind != model.KindSwift {
			return nil, refuseField("options."+field, "leave it out", "an %s backend has no %s", kind, field)
		}
	}
	return func(s *model.RemoteSpec) {
		set(&s.URL, in.URL)
		set(&s.Region, in.Region)
		set(&s.Container, in.Container)
		set(&s.User, in.User)
		set(&s.CA, in.Ca)
		set(&s.Proxy, in.Proxy)
		set(&s.Connections, in.Connections)
		set(&s.Upload, in.UploadBytes)
		set(&s.Download, in.DownloadBytes)
		if o := s.S3; o != nil {
			set(&o.Addressing, in.Addressing)
			set(&o.IAM, in.Iam)
			set(&o.SSE, in.Sse)
			set(&o.SSEKey, in.SseKey)
		}
		if o := s.Swift; o != nil {
			set(&o.AuthVersion, in.AuthVersion)
			set(&o.Domain, in.Domain)
			set(&o.Project, in.Project)
			set(&o.ProjectDomain, in.ProjectDomain)
			set(&o.Trust, in.Trust)
			set(&o.Credential, in.ApplicationCredential)
			set(&o.Endpoint, in.Endpoint)
			set(&o.Policy, in.Policy)
			set(&o.Shards, in.Shards)
		}
	}, nil
}

// set changes what is given.
func set[T any](to *T, from *T) {
	if from != nil {
		*to = *from
	}
}

func (s *Server) remoteOf(seen *sight, r model.Remote) RemoteBackend {
	var on, users []string
	for _, v := range s.opt.Model.VPools() {
		if v.Backend.Store == r.ID {
			on = append(on, v.ID)
			if seen.vpool(v.ID) {
				users = append(users, v.Name)
			}
		}
	}
	return RemoteBackend{
		ID: r.ID, Name: r.Name, Kind: RemoteKind(r.Kind), Options: remoteOptionsOf(r), HasSecret: len(r.Secret) > 0,
		Gives: append([]string{}, r.Gives...), Warnings: append([]string{}, r.Warnings...), ConditionalPut: r.Conditional,
		Vpools: append([]string{}, users...), Requests: s.requestsOf(on...), TestedAt: r.Tested.UTC(), Created: r.Created,
	}
}

// requestsOf sums up the requests to the stores of vPools, in the order of kinds.
func (s *Server) requestsOf(vpools ...string) []StoreRequests {
	out := []StoreRequests{}
	for _, id := range vpools {
		for i, k := range s.opt.Requests(id) {
			if i == len(out) {
				out = append(out, StoreRequests{Kind: k.Kind})
			}
			out[i].Requests += int64(k.Requests)
			out[i].Failed += int64(k.Errors)
			out[i].Bytes += int64(k.Bytes)
		}
	}
	return out
}

func (s *Server) remoteResult(ctx context.Context, r model.Remote, report control.RemoteReport) RemoteBackendResult {
	return RemoteBackendResult{Backend: s.remoteOf(s.sight(ctx), r), Steps: stepsOf(report.Steps)}
}

func stepsOf(in []remote.Step) []RemoteStep {
	out := []RemoteStep{}
	for _, x := range in {
		out = append(out, RemoteStep{Step: x.Step, Ok: x.OK, Detail: x.Detail, Millis: float32(x.Duration.Seconds() * 1000)})
	}
	return out
}

// ListBackends lists the registered stores.
func (s *Server) ListBackends(ctx context.Context, r ListBackendsRequestObject) (ListBackendsResponseObject, error) {
	seen := s.sight(ctx)
	var rows []RemoteBackend
	for _, v := range s.opt.Model.Remotes() {
		if seen.backend(v.ID) && matches(r.Params.Q, v.Name, nil) {
			rows = append(rows, s.remoteOf(seen, v))
		}
	}
	items, next, err := page(rows, func(v RemoteBackend) model.Keys { return model.Keys{Text: v.Name, ID: v.ID} }, "name", false, r.Params.Cursor, r.Params.Limit)
	return ListBackends200JSONResponse{items, next}, err
}

// GetBackend shows a registered store.
func (s *Server) GetBackend(ctx context.Context, r GetBackendRequestObject) (GetBackendResponseObject, error) {
	v, err := s.opt.Control.FindRemote(r.Backend)
	if err != nil {
		return nil, err
	}
	return GetBackend200JSONResponse(s.remoteOf(s.sight(ctx), v)), nil
}

// CreateBackend registers a store.
func (s *Server) CreateBackend(ctx context.Context, r CreateBackendRequestObject) (CreateBackendResponseObject, error) {
	b := r.Body
	if !b.Kind.Valid() {
		return nil, refuseField("kind", "use swift or s3", "there is no kind %q of backend to register", string(b.Kind))
	}
	in := control.NewRemote{Name: b.Name, Kind: string(b.Kind), Secret: value(b.Secret)}
	if in.Kind == model.KindS3 {
		in.Spec.S3 = &model.S3Spec{}
	} else {
		in.Spec.Swift = &model.SwiftSpec{}
	}
	change, err := remoteChange(in.Kind, &b.Options)
	if err != nil {
		return nil, err
	}
	change(&in.Spec)
	v, report, err := s.opt.Control.CreateRemote(ctx, in)
	if err != nil {
		return nil, err
	}
	return CreateBackend201JSONResponse(s.remoteResult(ctx, v, report)), nil
}

// UpdateBackend changes a registered store.
func (s *Server) UpdateBackend(ctx context.Context, r UpdateBackendRequestObject) (UpdateBackendResponseObject, error) {
	v, err := s.opt.Control.FindRemote(r.Backend)
	if err != nil {
		return nil, err
	}
	p := control.RemotePatch{Name: r.Body.Name, Secret: r.Body.Secret}
	if p.Spec, err = remoteChange(v.Kind, r.Body.Options); err != nil {
		return nil, err
	}
	v, report, err := s.opt.Control.UpdateRemote(ctx, v.ID, p)
	if err != nil {
		return nil, err
	}
	return UpdateBackend200JSONResponse(s.remoteResult(ctx, v, report)), nil
}

// DeleteBackend forgets a registered store.
func (s *Server) DeleteBackend(ctx context.Context, r DeleteBackendRequestObject) (DeleteBackendResponseObject, error) {
	if err := s.opt.Control.DeleteRemote(ctx, r.Backend); err != nil {
		return nil, err
	}
	return DeleteBackend204Response{}, nil
}

// TestBackend tries a registered store.
func (s *Server) TestBackend(ctx context.Context, r TestBackendRequestObject) (TestBackendResponseObject, error) {
	v, report, err := s.opt.Control.TestRemote(ctx, r.Backend)
	if err != nil {
		return nil, err
	}
	return TestBackend200JSONResponse(s.remoteResult(ctx, v, report)), nil
}

// GetVPoolKey tells the key of a vPool.
func (s *Server) GetVPoolKey(_ context.Context, r GetVPoolKeyRequestObject) (GetVPoolKeyResponseObject, error) {
	id, key, err := s.opt.Control.VPoolKey(r.VPool)
	if err != nil {
		return nil, err
	}
	return GetVPoolKey200JSONResponse{ID: id, Key: key}, nil
}
