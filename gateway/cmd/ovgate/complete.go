package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/openvstorage/ovgate/internal/client"
)

// Completion in a shell: names that a node knows.
const (
	// completeTimeout bounds a look-up: a key press should not hang.
	completeTimeout = 2 * time.Second
	// completeMost bounds the names offered.
	completeMost = 100
)

// completeVDisks offers names of vDisks for the first argument.
func (a *app) completeVDisks(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	return a.complete(cmd, args, func(ctx context.Context, api *client.Client) ([]string, error) {
		l, err := client.Get[client.VDiskList](api.ListVDisks(ctx, &client.ListVDisksParams{Limit: new(completeMost), Q: given(prefix)}))
		var all []string
		for _, v := range l.Items {
			all = append(all, v.Name)
		}
		return all, err
	})
}

// completeVPoolFlag offers names of vPools for a flag, whatever the arguments.
func (a *app) completeVPoolFlag(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
	return a.completeVPools(cmd, nil, prefix)
}

// completeVPools offers names of vPools for the first argument.
func (a *app) completeVPools(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	return a.complete(cmd, args, func(ctx context.Context, api *client.Client) ([]string, error) {
		l, err := client.Get[client.VPoolList](api.ListVPools(ctx, &client.ListVPoolsParams{Limit: new(completeMost), Q: given(prefix)}))
		var all []string
		for _, v := range l.Items {
			all = append(all, v.Name)
		}
		return all, err
	})
}

// completeClouds offers names of OpenStack clouds for the first argument.
func (a *app) completeClouds(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	return a.complete(cmd, args, func(ctx context.Context, api *client.Client) ([]string, error) {
		l, err := client.Get[client.CloudList](api.ListClouds(ctx, &client.ListCloudsParams{Limit: new(completeMost), Q: given(prefix)}))
		var all []string
		for _, c := range l.Items {
			all = append(all, c.Name)
		}
		return all, err
	})
}

// completeCenters offers names of vCenters for the first argument.
func (a *app) completeCenters(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	return a.complete(cmd, args, func(ctx context.Context, api *client.Client) ([]string, error) {
		l, err := client.Get[client.CenterList](api.ListCenters(ctx, &client.ListCentersParams{Limit: new(completeMost), Q: given(prefix)}))
		var all []string
		for _, c := range l.Items {
			all = append(all, c.Name)
		}
		return all, err
	})
}

// completeDatastores offers names of datastores for the first argument.
func (a *app) completeDatastores(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	return a.complete(cmd, args, func(ctx context.Context, api *client.Client) ([]string, error) {
		l, err := client.Get[client.DatastoreList](api.ListDatastores(ctx, &client.ListDatastoresParams{Limit: new(completeMost), Q: given(prefix)}))
		var all []string
		for _, d := range l.Items {
			all = append(all, d.Name)
		}
		return all, err
	})
}

func (a *app) completeBackends(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	return a.complete(cmd, args, func(ctx context.Context, api *client.Client) ([]string, error) {
		l, err := client.Get[client.RemoteBackendList](api.ListBackends(ctx, &client.ListBackendsParams{Limit: new(completeMost), Q: given(prefix)}))
		var all []string
		for _, v := range l.Items {
			all = append(all, v.Name)
		}
		return all, err
	})
}

// complete runs a look-up; a node that does not answer offers nothing.
func (a *app) complete(cmd *cobra.Command, args []string, look func(context.Context, *client.Client) ([]string, error)) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	api, err := a.dial()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completeTimeout)
	defer cancel()
	found, err := look(ctx, api)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return found, cobra.ShellCompDirectiveNoFileComp
}

// completeFlag registers f for a flag. Only a flag that the verb lacks makes it
// fail, a slip in this program that no user can cause.
func (a *app) completeFlag(cmd *cobra.Command, flag string, f cobra.CompletionFunc) {
	if err := cmd.RegisterFlagCompletionFunc(flag, f); err != nil {
		panic(err)
	}
}

// completeTasks offers ids of tasks for the first argument.
func (a *app) completeTasks(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	return a.complete(cmd, args, func(ctx context.Context, api *client.Client) ([]string, error) {
		l, err := client.Get[client.JobList](api.ListJobs(ctx, &client.ListJobsParams{Limit: new(completeMost), Q: given(prefix)}))
		var all []string
		for _, j := range l.Items {
			all = append(all, j.ID)
		}
		return all, err
	})
}
